package redisreplay

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/replaystate"
)

// engine is the replaystate.Engine of a Store.
type engine struct {
	server  *server
	o       Options
	limits  replaystate.Limits
	scripts scripts
	// handle is the field in the hash of the store that has the change number of the last
	// call of this Store that wrote.
	handle string

	life context.Context //nolint:containedctx // until Close
	stop context.CancelFunc
	runs sync.WaitGroup

	mu          sync.Mutex // guards what follows, never held across a request
	closed      bool
	founds      bool // makes a store that is not there
	groups      map[string]*group
	script      string             // name of the transaction at the server
	history     string             // replication ID of the server that was checked last; empty if none is
	maxReplicas int64              // the most replicas that this history had
	stamp       replaystate.Stamp  // the change number is the last one that was confirmed
	counts      replaystate.Counts // of the store
	clock       int64              // the server's, in Unix milliseconds, at
	sampled     time.Time          // on the monotonic clock
}

func newEngine(s *server, o Options, with scripts) *engine {
	e := &engine{server: s, o: o, limits: o.Bounds.Limits(), scripts: with, founds: !o.MustExist, groups: make(map[string]*group), sampled: time.Now()}
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails: it ends the process instead
	e.handle = fmt.Sprintf("@%x", id)
	e.life, e.stop = context.WithCancel(context.Background())
	return e
}

// start checks the server, makes the store unless it is there, and reads its clock.
func (e *engine) start(ctx context.Context) error {
	g := newGroup(e, "")
	_, err := g.transaction(ctx, reads, func(*call) {})
	if errors.Is(err, fs.ErrNotExist) {
		return err
	}
	e.mu.Lock()
	e.founds = true
	e.mu.Unlock()
	return e.public(err)
}

func (e *engine) close(ctx context.Context) error {
	e.mu.Lock()
	closed := e.closed
	e.closed = true
	e.stop() // under mu: no goroutine starts after it
	e.mu.Unlock()
	if closed {
		return nil
	}
	done := make(chan struct{})
	go func() {
		e.runs.Wait()
		close(done)
	}()
	select {
	case <-done:
		e.leave(ctx)
		return e.server.close()
	case <-ctx.Done():
		return errors.Join(ctx.Err(), e.server.close())
	}
}

// leaveTimeout bounds how long Close waits for the server. A field that stays does no harm.
const leaveTimeout = time.Second

// leave removes what the server has of this Store alone.
func (e *engine) leave(ctx context.Context) {
	if e.stamped().Change == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	if c, err := e.server.node(ctx); err == nil {
		_ = c.HDel(ctx, e.server.key, e.handle).Err()
	}
}

// of returns what is known of a group.
func (e *engine) of(name string) *group {
	e.mu.Lock()
	defer e.mu.Unlock()
	g := e.groups[name]
	if g == nil {
		g = newGroup(e, name)
		e.groups[name] = g
	}
	return g
}

func (e *engine) stamped() replaystate.Stamp {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.stamp
}

func (e *engine) storeCounts() replaystate.Counts {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.counts
}

func (e *engine) setStoreCounts(n replaystate.Counts) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.counts = n
}

// serverTime estimates the server's clock. The estimate is not ahead of it unless one of
// the clocks was set or drifts.
func (e *engine) serverTime() int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.clock == 0 {
		return 0
	}
	return e.clock + time.Since(e.sampled).Milliseconds()
}

// answered takes in what each answer says about the server.
func (e *engine) answered(r *reply, history string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.clock, e.sampled = r.now, time.Now()
	if r.status != statusServer && e.history == history {
		e.maxReplicas = max(e.maxReplicas, r.replicas)
	}
}

// checked returns the replication ID of the server, which it checks unless it has.
func (e *engine) checked(ctx context.Context) (string, error) {
	e.mu.Lock()
	history := e.history
	e.mu.Unlock()
	if history != "" {
		return history, nil
	}
	history, err := e.server.check(ctx, e.o.Fsync)
	if e.server.moved(ctx, err) {
		history, err = e.server.check(ctx, e.o.Fsync)
	}
	if err == nil {
		err = e.introduce(ctx)
	}
	if err != nil {
		return "", err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.history == "" {
		e.history, e.maxReplicas = history, 0
	}
	return e.history, nil
}

// distrust has the server checked again, unless that was done since.
func (e *engine) distrust(history string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.history == history {
		e.history = ""
	}
}

// needed returns how many replicas have to confirm.
func (e *engine) needed(history string) int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	replicas := e.maxReplicas
	if e.history != history {
		replicas = 0
	}
	return replicasNeeded(e.o.Replicas, replicas)
}

// adopt takes over another memory, which it makes if there is none.
func (e *engine) adopt(ctx context.Context, r *reply) error {
	if r.id == [16]byte{} {
		e.mu.Lock()
		allowed := e.founds
		e.mu.Unlock()
		if !allowed {
			return fmt.Errorf("there is no store with the prefix %s: %w", e.o.Prefix, fs.ErrNotExist)
		}
		c, err := e.server.node(ctx)
		if err != nil {
			return err
		}
		var id [16]byte
		_, _ = rand.Read(id[:]) // never fails: it ends the process instead
		return c.Eval(ctx, e.scripts.found, []string{e.server.key}, id[:]).Err()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stamp = replaystate.Stamp{ID: r.id, Birth: r.birth}
	return nil
}

// confirmed takes in that a write is where it has to be.
func (e *engine) confirmed(r *reply) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stamp.ID == r.id {
		e.stamp.Change = max(e.stamp.Change, r.change)
	}
}

// renew gives a memory that has lost writes another ID.
func (e *engine) renew(ctx context.Context, lost replaystate.Stamp) error {
	c, err := e.server.node(ctx)
	if err != nil {
		return err
	}
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails: it ends the process instead
	return c.Eval(ctx, e.scripts.renew, []string{e.server.key}, lost.ID[:], id[:], lost.Change, e.handle).Err()
}

// settle waits until so many replicas have all that was written, with one more write,
// because WAIT is about the writes of its connection.
func (e *engine) settle(ctx context.Context, history string, replicas int64) error {
	r := e.blank(writes)
	got, err := e.transact(ctx, r, r.arguments(e.stamped(), history, e.serverTime(), 1<<40, "", e.handle), replicas)
	switch {
	case err != nil:
		return err
	case got.status != statusDone:
		return errors.New("the server changed during the call: repeat it")
	case got.waited < replicas:
		return replicasError(got.waited, replicas)
	}
	return nil
}

// isDamage reports whether an error is about what is stored.
func isDamage(err error) bool {
	return errors.Is(err, replaystate.ErrCorrupt) || errors.Is(err, errField) || errors.Is(err, errReply)
}

// public classifies an error.
func (e *engine) public(err error) error {
	code := driver.Unavailable
	switch {
	case err == nil:
		return nil
	case isDamage(err):
		code = driver.Corrupt
	case errors.Is(err, ErrEviction), errors.Is(err, ErrNotDurable), errors.Is(err, ErrReplica), errors.Is(err, ErrClosed):
		code = driver.Other
	case redis.HasErrorPrefix(err, "NOPERM"), redis.HasErrorPrefix(err, "NOAUTH"), redis.HasErrorPrefix(err, "WRONGPASS"):
		code = driver.Permission
	}
	return driver.Errorf(code, "redis replay store: %w", err)
}

// Begin implements replaystate.Engine.
func (e *engine) Begin(ctx context.Context, group string, r []replaystate.Request) ([]replaystate.Claim, replaystate.Stamp, error) {
	out := make([]replaystate.Claim, len(r))
	ahead := int64(0) // of this process's clock, to the server's
	stamp, err := e.of(group).run(&task{ctx: ctx, write: true, items: len(r), do: func(l *call) {
		ahead = time.Now().UnixMilli() - l.env.Now
		for i := range r {
			l.open(r[i].Key)
			out[i] = replaystate.Begin(&l.env, l, &r[i])
		}
	}})
	if err != nil {
		return nil, stamp, err
	}
	for i := range out {
		if out[i].Until != 0 {
			out[i].Until += ahead
		}
	}
	return out, stamp, nil
}

// Renew implements replaystate.Engine.
func (e *engine) Renew(ctx context.Context, group string, s []replaystate.Lease) ([]replaystate.Outcome, replaystate.Stamp, error) {
	out := make([]replaystate.Outcome, len(s))
	stamp, err := e.of(group).run(&task{ctx: ctx, write: true, items: len(s), do: func(l *call) {
		for i := range s {
			l.open(s[i].Key)
			out[i] = replaystate.Extend(&l.env, l, &s[i])
		}
	}})
	if err != nil {
		return nil, stamp, err
	}
	return out, stamp, nil
}

// Finish implements replaystate.Engine.
func (e *engine) Finish(ctx context.Context, group string, f []replaystate.Finish) ([]replaystate.Outcome, replaystate.Stamp, error) {
	out := make([]replaystate.Outcome, len(f))
	stamp, err := e.of(group).run(&task{ctx: ctx, write: true, items: len(f), do: func(l *call) {
		for i := range f {
			l.open(f[i].Key)
			out[i] = replaystate.End(&l.env, l, &f[i])
		}
	}})
	if err != nil {
		return nil, stamp, err
	}
	return out, stamp, nil
}

// Look implements replaystate.Engine.
func (e *engine) Look(ctx context.Context, group string, q []replaystate.Query) ([]replaystate.Look, replaystate.Stamp, error) {
	out := make([]replaystate.Look, len(q))
	ahead := int64(0)
	stamp, err := e.of(group).run(&task{ctx: ctx, items: len(q), do: func(l *call) {
		ahead = time.Now().UnixMilli() - l.env.Now
		for i := range q {
			l.open(q[i].Key)
			out[i] = replaystate.Examine(&l.env, l, &q[i])
		}
	}})
	if err != nil {
		return nil, stamp, err
	}
	for i := range out {
		if out[i].Until != 0 {
			out[i].Until += ahead
		}
	}
	return out, stamp, nil
}

// Note implements replaystate.Engine. It shares no request with other calls: a note that
// is entered again says nothing new.
func (e *engine) Note(ctx context.Context, group string, n []replaystate.Note) ([]uint64, replaystate.Stamp, error) {
	out := make([]uint64, len(n))
	var stamp replaystate.Stamp
	g := e.of(group)
	_, err := g.run(&task{ctx: ctx, items: len(n), alone: func(ctx context.Context) (err error) {
		stamp, err = g.transaction(ctx, writes, func(l *call) {
			for i := range n {
				l.open(n[i].Key)
				if out[i] = 0; l.Head() != nil {
					out[i] = replaystate.Enter(l.Head(), &n[i])
				}
			}
		})
		return err
	}})
	if err != nil {
		return nil, stamp, err
	}
	return out, stamp, nil
}

// Probe implements replaystate.Engine. It raises the change number.
func (e *engine) Probe(ctx context.Context, group string) (out replaystate.Outcome, err error) {
	g := e.of(group)
	_, err = g.run(&task{ctx: ctx, alone: func(ctx context.Context) error {
		// Its answer has the counts.
		if _, err := g.transaction(ctx, writes, func(*call) {}); err != nil {
			return err
		}
		out = e.limits.Open(e.storeCounts(), g.counts)
		return nil
	}})
	if err != nil {
		return 0, err
	}
	return out, nil
}

// streamsStep is how many streams are read at once, about.
const streamsStep = 64

// Streams implements replaystate.Engine.
func (e *engine) Streams(ctx context.Context, group string) iter.Seq2[replaystate.Entry, error] {
	return func(yield func(replaystate.Entry, error) bool) {
		g, cursor := e.of(group), uint64(0)
		seen := make(map[replaystate.Key]bool) // a scan may return a field twice
		for {
			var entries []replaystate.Entry
			from := cursor
			_, err := g.run(&task{ctx: ctx, alone: func(ctx context.Context) (err error) {
				// That it is the server and the memory of before.
				if _, err := g.transaction(ctx, reads, func(*call) {}); err != nil {
					return err
				}
				entries, cursor, err = g.accounts(ctx, from)
				return err
			}})
			if err != nil {
				yield(replaystate.Entry{}, err)
				return
			}
			for _, s := range entries {
				if seen[s.Key] {
					continue
				}
				seen[s.Key] = true
				if !yield(s, nil) {
					return
				}
			}
			if cursor == 0 {
				return
			}
		}
	}
}

// What is held takes about so many bytes of the server's memory. Measured with Redis
// 7.0: docs/replay/redis.md.
const (
	recordBytes   = 360 // a page for each, as parked ones have; 90 in a page with others
	recentBytes   = 30  // in a page with others
	streamBytes   = 240
	intervalBytes = 8
	storeBytes    = 2000
)

// Stats implements replaystate.Engine.
func (e *engine) Stats(ctx context.Context) (s replaystate.Stats, err error) {
	e.mu.Lock()
	all := make([]*group, 0, len(e.groups))
	for _, g := range e.groups {
		all = append(all, g)
	}
	e.mu.Unlock()
	for _, g := range all {
		// Behind the calls and the sweeps that are under way.
		if _, err := g.run(&task{ctx: ctx, alone: func(context.Context) error { return nil }}); err != nil {
			return s, err
		}
	}
	g := newGroup(e, "")
	ctx, cancel := context.WithTimeout(ctx, e.o.Timeout)
	defer cancel()
	if e.life.Err() != nil {
		return s, e.public(ErrClosed)
	}
	if s.Stamp, err = g.transaction(ctx, reads, func(*call) {}); err != nil {
		return s, e.public(err)
	}
	n := e.storeCounts()
	s.Counts, s.Limits, s.Shared, s.Durable = n, e.limits, true, e.o.Fsync == FsyncAlways
	s.Bytes = storeBytes + n.Records*recordBytes + n.Recents*recentBytes + n.Streams*streamBytes + n.Intervals*intervalBytes
	return s, nil
}
