package redisreplay

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"

	"github.com/queue-runtime/queue/internal/replaystate"
)

// transactionScript may run again: what it wrote before makes it stale.
//
//go:embed transaction.lua
var transactionScript string

// foundScript makes the store unless it is there.
const foundScript = `
local time = redis.call('TIME')
if redis.call('HSETNX', KEYS[1], 'id', ARGV[1]) == 1 then
	redis.call('HSET', KEYS[1], 'birth', time[1] * 1000 + math.floor(time[2] / 1000))
end
return redis.call('HGET', KEYS[1], 'id')`

// renewScript gives a memory that lost confirmed writes another ID and another birth, so
// that all receivers notice, and lets its change number go on where it was.
const renewScript = `
local time = redis.call('TIME')
local store = redis.call('HMGET', KEYS[1], 'id', 'change', ARGV[4])
local change, confirmed = tonumber(store[2]) or 0, tonumber(ARGV[3])
if store[1] == ARGV[1] and (change < confirmed or (tonumber(store[3]) or 0) < confirmed) then
	redis.call('HSET', KEYS[1], 'id', ARGV[2], 'birth', time[1] * 1000 + math.floor(time[2] / 1000), 'change', math.max(change, confirmed))
end
return redis.call('HGET', KEYS[1], 'id')`

// acceptScript gives the memory another ID and another birth because an operator has
// accepted a loss, if it is still the one that the operator's decision is about, at the
// change number that is recorded.
const acceptScript = `
local store = redis.call('HMGET', KEYS[1], 'id', 'losses', 'change')
if store[1] ~= ARGV[1] or (store[2] or '') ~= ARGV[2] or (tonumber(store[3]) or 0) ~= tonumber(ARGV[6]) then
	return 0
end
redis.call('HSET', KEYS[1], 'id', ARGV[3], 'birth', ARGV[4], 'losses', ARGV[5])
return 1`

// scripts are what the server runs.
type scripts struct{ transaction, found, renew string }

// The first keys of a transaction.
const (
	storeKey = 1 + iota // as Lua counts
	countKey
	dueKey
	headsKey
)

// How a transaction ends.
const (
	statusDone   = "done"
	statusStale  = "stale"  // something has changed since it was read
	statusFull   = "full"   // a count would be above its bound
	statusClock  = "clock"  // the estimate of the server's clock is too far off
	statusStore  = "store"  // it is another memory, or there is none
	statusLost   = "lost"   // the memory has lost writes that it confirmed
	statusServer = "server" // the server has not been checked
)

// request is the arguments of a transaction.
type request struct {
	keys    []string
	indexes map[string]int
	write   bool

	reads   []any
	read    []place // of the reads, in order
	counts  []string
	changes []any
	writes  []any
	scores  []any
	numbers struct{ changes, writes, scores int }
}

// key returns the index of a key in KEYS.
func (r *request) key(name string) int {
	i := r.indexes[name]
	if i == 0 {
		r.keys = append(r.keys, name)
		i = len(r.keys)
		r.indexes[name] = i
	}
	return i
}

// change adds to a count. It fails the transaction if the count would be above bound,
// unless that is 0.
func (r *request) change(key int, field string, by, bound int64) {
	if by != 0 {
		r.changes = append(r.changes, key, field, by, bound)
		r.numbers.changes++
	}
}

// put writes a value; none removes it.
func (r *request) put(key int, field string, value []byte) {
	r.writes = append(r.writes, key, field, value)
	r.numbers.writes++
}

// score sets the score of a member of a sorted set.
func (r *request) score(key int, member string, score int64) {
	r.scores = append(r.scores, key, member, score)
	r.numbers.scores++
}

// unscore removes a member of a sorted set.
func (r *request) unscore(key int, member string) {
	r.scores = append(r.scores, key, member, "")
	r.numbers.scores++
}

// arguments returns ARGV.
func (r *request) arguments(memory replaystate.Stamp, history string, expected, slack int64, version, handle string) []any {
	mode := "r"
	if r.write {
		mode = "w"
	}
	id := ""
	if memory.ID != [16]byte{} {
		id = string(memory.ID[:])
	}
	a := make([]any, 0, 13+len(r.reads)+len(r.counts)+len(r.changes)+len(r.writes)+len(r.scores))
	a = append(a, id, memory.Change, history, expected, slack, mode, version, handle)
	a = append(append(a, len(r.read)), r.reads...)
	a = append(a, len(r.counts))
	for _, c := range r.counts {
		a = append(a, c)
	}
	a = append(append(a, r.numbers.changes), r.changes...)
	a = append(append(a, r.numbers.writes), r.writes...)
	return append(append(a, r.numbers.scores), r.scores...)
}

// reply is the answer to a transaction.
type reply struct {
	status   string
	now      int64 // the server's clock
	replicas int64 // the most that its history had
	id       [16]byte
	birth    int64
	change   uint64
	store    [4]int64
	counts   []int64
	stale    map[int]string // by the index of the read
	due      int64
	waited   int64 // how many replicas have it
}

var errReply = errors.New("the script's answer has another form than expected")

func parseReply(v any, reads, counts int) (r *reply, err error) {
	list, ok := v.([]any)
	if !ok || len(list) != 10 {
		return nil, errReply
	}
	r = &reply{stale: make(map[int]string)}
	var numbers [4]int64
	for i, place := range [...]int{1, 2, 4, 5} {
		if numbers[i], ok = list[place].(int64); !ok {
			return nil, errReply
		}
	}
	r.now, r.replicas, r.birth, r.change = numbers[0], numbers[1], numbers[2], uint64(numbers[3]) //nolint:gosec // G115: counts up from 0
	var id string
	if r.status, ok = list[0].(string); !ok {
		return nil, errReply
	}
	if id, ok = list[3].(string); !ok || len(id) != 0 && len(id) != len(r.id) {
		return nil, errReply
	}
	copy(r.id[:], id)
	store, err := parseCounts(list[6])
	if err != nil || len(store) != len(r.store) {
		return nil, errReply
	}
	copy(r.store[:], store)
	if r.counts, err = parseCounts(list[7]); err != nil || len(r.counts) != counts {
		return nil, errReply
	}
	stale, ok := list[8].([]any)
	if !ok || len(stale)%2 != 0 {
		return nil, errReply
	}
	for i := 0; i < len(stale); i += 2 {
		n, ok := stale[i].(int64)
		value, is := stale[i+1].(string)
		if !ok || !is || n < 1 || n > int64(reads) || len(value) > 0 && len(value) < versionSize {
			return nil, errReply
		}
		r.stale[int(n-1)] = value
	}
	if r.due, ok = list[9].(int64); !ok {
		return nil, errReply
	}
	return r, nil
}

// parseCounts reads numbers of a hash; what is absent is 0.
func parseCounts(v any) ([]int64, error) {
	list, ok := v.([]any)
	if !ok {
		return nil, errReply
	}
	out := make([]int64, len(list))
	for i, n := range list {
		text, _ := n.(string) // nil: absent
		if text == "" {
			continue
		}
		var err error
		if out[i], err = strconv.ParseInt(text, 10, 64); err != nil {
			return nil, errReply
		}
	}
	return out, nil
}

// transact makes one request: the script and WAIT on one connection.
func (e *engine) transact(ctx context.Context, r *request, arguments []any, replicas int64) (*reply, error) {
	for again := false; ; again = true {
		out, err := e.attempt(ctx, r, arguments, replicas)
		if err == nil || again || !e.server.moved(ctx, err) {
			return out, err
		}
	}
}

func (e *engine) attempt(ctx context.Context, r *request, arguments []any, replicas int64) (*reply, error) {
	c, err := e.server.node(ctx)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	name := e.script
	e.mu.Unlock()
	p := c.Pipeline()
	run := p.EvalSha(ctx, name, r.keys, arguments...)
	var wait *redis.Cmd
	if replicas > 0 {
		wait = p.Do(ctx, "WAIT", replicas, e.o.ReplicaTimeout.Milliseconds())
	}
	_, _ = p.Exec(ctx) // each command has its own error
	if redis.HasErrorPrefix(run.Err(), "NOSCRIPT") {
		return &reply{status: statusServer}, nil // it has not been introduced
	}
	if run.Err() != nil {
		return nil, run.Err()
	}
	out, err := parseReply(run.Val(), len(r.read), len(r.counts))
	if err != nil {
		return nil, err
	}
	if wait != nil && out.status == statusDone {
		if out.waited, err = wait.Int64(); err != nil {
			return nil, fmt.Errorf("wait for replicas: %w", err)
		}
	}
	return out, nil
}

// introduce has the server keep the script. It tells the name that it has there, so that
// SHA-1 is not computed here, where FIPS 140-3 may forbid it.
func (e *engine) introduce(ctx context.Context) error {
	c, err := e.server.node(ctx)
	if err != nil {
		return err
	}
	name, err := c.ScriptLoad(ctx, e.scripts.transaction).Result()
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.script = name
	return nil
}

// blank returns a request that reads and writes nothing.
func (e *engine) blank(write bool) *request {
	none := "{" + e.o.Prefix + "}:none"
	return &request{write: write, keys: []string{e.server.key, none, none, none}, counts: []string{"R"}}
}
