package redisreplay

import (
	"context"
	"crypto/rand"
	mrand "math/rand/v2"
	"slices"
	"time"

	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/internal/replaystate"
)

// group is what this process knows of a group, and the calls that wait for it. Its calls
// take turns: those that come while a request is under way share the next one.
type group struct {
	e     *engine
	group string

	// Guarded by engine.mu.
	waiting []*task
	running bool

	// Of the goroutine that runs.
	cache   map[place]string // as last seen, with their versions; absent is not entered
	bytes   int              // of the cache
	counts  replaystate.Counts
	senders map[string]replaystate.Counts
	store   [16]byte // the memory that all of this is about
	due     int64    // when the first page is due, by the server's clock
	spread  int64    // by how much later this process looks at it
	swept   int64
	cursor  uint64 // among the senders, of the next one whose old streams are looked at
}

func newGroup(e *engine, name string) *group {
	return &group{
		e: e, group: name, cache: make(map[place]string), senders: make(map[string]replaystate.Counts),
		spread: mrand.Int64N(sweepSpread), //nolint:gosec // G404: spreads work, no secret
	}
}

// task is a call that waits for its turn.
type task struct {
	ctx   context.Context //nolint:containedctx // of its caller
	write bool
	items int
	do    func(l *call)                   // in a transaction with the calls of others
	alone func(ctx context.Context) error // instead of do
	stamp replaystate.Stamp
	err   error
	done  chan struct{}
}

// sharedItems bounds the items of calls that share a request, so that no other client of
// the server waits long.
const sharedItems = 1024

// run has a task take its turn.
func (g *group) run(t *task) (replaystate.Stamp, error) {
	t.done = make(chan struct{})
	g.e.mu.Lock()
	if g.e.life.Err() != nil {
		g.e.mu.Unlock()
		return replaystate.Stamp{}, ErrClosed
	}
	g.waiting = append(g.waiting, t)
	if !g.running {
		g.running = true
		g.e.runs.Go(g.serve)
	}
	g.e.mu.Unlock()
	select {
	case <-t.done:
		return t.stamp, t.err
	case <-t.ctx.Done():
		// The server may still do it.
		return replaystate.Stamp{}, t.ctx.Err()
	}
}

// take returns the next tasks that go together, nil if there are none.
func (g *group) take() []*task {
	g.e.mu.Lock()
	defer g.e.mu.Unlock()
	n, items := 0, 0
	for n < len(g.waiting) {
		t := g.waiting[n]
		first := g.waiting[0]
		items += t.items
		if n > 0 && (t.alone != nil || first.alone != nil || t.write != first.write || items > sharedItems) {
			break
		}
		n++
	}
	if n == 0 {
		g.running = false
		return nil
	}
	batch := slices.Clone(g.waiting[:n])
	g.waiting = slices.Delete(g.waiting, 0, n)
	return batch
}

// serve runs tasks until none waits.
func (g *group) serve() {
	for {
		batch := g.take()
		if batch == nil {
			return
		}
		batch = slices.DeleteFunc(batch, func(t *task) bool {
			if err := t.ctx.Err(); err != nil {
				t.err = err
				close(t.done)
				return true
			}
			return false
		})
		if len(batch) == 0 {
			continue
		}
		g.perform(batch)
		for _, t := range batch {
			close(t.done)
		}
		g.sweepIfDue()
	}
}

// perform runs tasks of one transaction, or each for itself if one of them meets what is
// damaged.
func (g *group) perform(batch []*task) {
	ctx, cancel := context.WithTimeout(g.e.life, g.e.o.Timeout)
	defer cancel()
	if t := batch[0]; t.alone != nil {
		t.err = g.e.public(t.alone(ctx))
		return
	}
	stamp, err := g.transaction(ctx, batch[0].write, func(l *call) {
		for _, t := range batch {
			t.do(l)
		}
	})
	if err != nil && len(batch) > 1 && isDamage(err) {
		for _, t := range batch {
			t.stamp, t.err = g.transaction(ctx, t.write, t.do)
			t.err = g.e.public(t.err)
		}
		return
	}
	for _, t := range batch {
		t.stamp, t.err = stamp, g.e.public(err)
	}
}

const (
	// quickTries is how many attempts may meet a change before the next one waits.
	quickTries = 2
	// firstSlack is by how much the server's clock may be ahead of the estimate, in
	// milliseconds. It doubles with each attempt.
	firstSlack = 1000
)

// What a transaction does in the server.
const (
	reads  = false
	writes = true
)

// transaction runs do until nothing has changed meanwhile, and until the replicas have
// what it wrote.
func (g *group) transaction(ctx context.Context, write bool, do func(l *call)) (replaystate.Stamp, error) {
	confirmed, madeRoom := false, false
	for try := 0; ; try++ {
		if try > quickTries {
			wait := time.Millisecond << min(try-quickTries, 6)
			if !backoff.Sleep(ctx, wait/2+mrand.N(wait)) { //nolint:gosec // G404: jitter, not a secret
				return replaystate.Stamp{}, ErrContention
			}
		}
		g.forgetOther()
		now := g.e.serverTime()
		l := g.newCall(write, now)
		do(l)
		l.finish()
		if l.err != nil {
			return replaystate.Stamp{}, l.err
		}
		used := g.counted(l)
		r, err := g.send(ctx, l, now, firstSlack<<min(try, 20))
		if err != nil {
			return replaystate.Stamp{}, err
		}
		if r.status != statusDone {
			continue
		}
		stamp := replaystate.Stamp{ID: r.id, Birth: r.birth, Change: r.change}
		switch {
		case len(l.refused) == 0:
			return stamp, nil
		case !confirmed && used != l.found:
			confirmed = true // perhaps there was room
			continue
		case madeRoom:
			return stamp, nil
		}
		madeRoom = true
		if dropped, err := g.makeRoom(ctx, l.refused); err != nil || !dropped {
			return stamp, err
		}
	}
}

// counted is what the refusals of a call are based on: the counts of the store, the group
// and the senders that were refused.
func (g *group) counted(l *call) [3]replaystate.Counts {
	c := [3]replaystate.Counts{g.e.storeCounts(), g.counts, {}}
	for _, s := range l.refused {
		c[2].Add(g.senders[s])
	}
	return c
}

// send makes the request of a call and takes in the answer.
func (g *group) send(ctx context.Context, l *call, now, slack int64) (*reply, error) {
	e := g.e
	history, err := e.checked(ctx)
	if err != nil {
		return nil, err
	}
	var version [versionSize]byte
	_, _ = rand.Read(version[:]) // never fails: it ends the process instead
	replicas := e.needed(history)
	memory := e.stamped()
	r, err := e.transact(ctx, &l.request, l.request.arguments(memory, history, now, slack, string(version[:]), e.handle), replicas)
	if err != nil {
		return nil, err
	}
	if r.now == 0 {
		e.distrust(history)
		return r, nil
	}
	e.answered(r, history)
	g.due = r.due
	g.takeCounts(l, r)
	for i, value := range r.stale {
		g.remember(l.request.read[i], value)
	}
	switch {
	case r.status == statusServer:
		e.distrust(history)
		return r, nil
	case r.status == statusStore:
		return r, e.adopt(ctx, r)
	case r.status == statusLost:
		return r, e.renew(ctx, memory)
	case r.status != statusDone || !l.request.write:
		return r, nil
	}
	for p, value := range l.values {
		if value == nil {
			g.remember(p, "")
		} else {
			g.remember(p, string(version[:])+string(value))
		}
	}
	if r.waited < replicas {
		return r, replicasError(r.waited, replicas)
	}
	if need := e.needed(history); need > replicas {
		// The server has more replicas than before.
		if err := e.settle(ctx, history, need); err != nil {
			return r, err
		}
	}
	e.confirmed(r)
	return r, nil
}

// takeCounts takes in the counts of an answer, which are those before the call, and adds
// what the call did.
func (g *group) takeCounts(l *call, r *reply) {
	n, all, store := r.counts, four(r.counts), four(r.store[:])
	senders := make(map[string]replaystate.Counts, len(l.senders))
	for i := 4; i < len(n); i += 4 {
		senders[l.request.counts[i][1:]] = four(n[i:])
	}
	l.found = [3]replaystate.Counts{store, all, {}}
	for _, s := range l.refused {
		l.found[2].Add(senders[s])
	}
	if r.status == statusDone && l.request.write {
		store.Add(l.added)
		all.Add(l.added)
		for s, n := range senders {
			n.Add(*l.senders[s])
			senders[s] = n
		}
	}
	g.e.setStoreCounts(store)
	g.counts = all
	if len(g.senders) > maxSenders {
		clear(g.senders)
	}
	for s, n := range senders {
		g.senders[s] = n
	}
}

// four makes counts of the first four numbers.
func four(n []int64) replaystate.Counts {
	return replaystate.Counts{Records: n[0], Recents: n[1], Streams: n[2], Intervals: n[3]}
}

const (
	// maxSenders bounds the senders whose counts are remembered.
	maxSenders = 4096
	// maxBytes bounds what is remembered of a group's pages and heads.
	maxBytes = 16 << 20
)

// remember takes a value in; "" means that there is none.
func (g *group) remember(p place, value string) {
	g.bytes += len(value) - len(g.cache[p])
	if value == "" {
		delete(g.cache, p)
		return
	}
	g.cache[p] = value
	for old, v := range g.cache {
		if g.bytes <= maxBytes {
			break
		}
		g.bytes -= len(v)
		delete(g.cache, old)
	}
}

// forgetOther forgets what is of another memory.
func (g *group) forgetOther() {
	if id := g.e.stamped().ID; id != g.store {
		g.store, g.bytes, g.counts = id, 0, replaystate.Counts{}
		clear(g.cache)
		clear(g.senders)
	}
}
