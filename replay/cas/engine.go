package cas

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/queue-runtime/queue/internal/replaystate"
)

// pageID names a page of a group.
type pageID struct {
	key   replaystate.Key
	index uint64
}

// item is one item of a call, as far as its distribution over pages goes.
type item struct {
	key                replaystate.Key
	sequence, previous uint64
}

// batch distributes the items of a call over their pages and runs do for each, the
// pages in parallel and the items of a page in order.
func (e *engine) batch(ctx context.Context, group string, items []item, do func(i int, env *replaystate.Env, s replaystate.Stream)) (replaystate.Stamp, error) {
	for range maxMemories {
		if err := e.prepare(ctx); err != nil {
			return replaystate.Stamp{}, err
		}
		before := e.stamped()
		if err := e.rounds(ctx, e.plan(group, items, do)); err != nil {
			return replaystate.Stamp{}, err
		}
		// What was written to another memory may be gone with it: the call is made again in
		// the present one, and so its answer is of one memory.
		if after := e.stamped(); after.ID == before.ID {
			return after, nil
		}
	}
	return replaystate.Stamp{}, errMemories
}

var errMemories = errors.New("cas: the store has lost its memory several times during one call")

// maxMemories bounds how often a call is made because the store has lost its memory.
const maxMemories = 4

// rounds performs the works of a call. Afterwards the stamp is that of the memory that was
// found.
func (e *engine) rounds(ctx context.Context, all [][]*work) error {
	doubted := false
	for _, round := range all {
		if err := e.parallel(ctx, round); err != nil {
			return err
		}
		doubted = doubted || slices.ContainsFunc(round, func(w *work) bool { return w.doubted })
	}
	if !doubted && !e.doubtful() {
		return nil
	}
	// Perhaps nothing was there, or something else, because the memory is another one. It may
	// be full again already: others go on with it.
	return e.check(ctx)
}

// message names a message of a group.
type message struct {
	key      replaystate.Key
	sequence uint64
}

// plan makes the works of a call in rounds: one after the other, the works of a
// round side by side. There is one round unless a message and its Previous are of
// the same call and of different pages: the second of the two in the call acts in a
// later round, so that each sees those before it and none behind it.
func (e *engine) plan(group string, items []item, do func(i int, env *replaystate.Env, s replaystate.Stream)) (rounds [][]*work) {
	last := make(map[pageID]int)     // round of the last item of a page
	acted := make(map[message]int)   // round of a message
	awaited := make(map[message]int) // round after the one in which it was some Previous
	places := make([]map[pageID][]int, 0, 1)
	for i := range items {
		id := pageID{items[i].key, replaystate.IndexOf(items[i].sequence, e.o.PageSpan)}
		self := message{id.key, items[i].sequence}
		round := max(last[id], awaited[self])
		if p := items[i].previous; p != 0 && replaystate.IndexOf(p, e.o.PageSpan) != id.index {
			before := message{id.key, p}
			if r, ok := acted[before]; ok {
				round = max(round, r+1)
			}
			awaited[before] = max(awaited[before], round+1)
		}
		last[id], acted[self] = round, round
		if round == len(places) {
			places = append(places, make(map[pageID][]int))
			rounds = append(rounds, nil)
		}
		if places[round][id] == nil {
			rounds[round] = append(rounds[round], &work{group: group, key: id.key, index: id.index})
		}
		places[round][id] = append(places[round][id], i)
	}
	for n, round := range rounds {
		for _, w := range round {
			mine := places[n][pageID{w.key, w.index}]
			w.apply = func(env *replaystate.Env, s replaystate.Stream) {
				for _, i := range mine {
					do(i, env, s)
				}
			}
		}
	}
	return rounds
}

// parallel runs works side by side and returns the first failure. Together, a group has one
// request under way, and otherwise each page.
func (e *engine) parallel(ctx context.Context, all []*work) error {
	if e.joins(all[0].group) {
		return e.inTurn(ctx, e.pagePrefix(all[0].group), all)
	}
	return e.each(len(all), func(i int) error {
		return e.inTurn(ctx, e.pageKey(all[i].group, all[i].key, all[i].index), all[i:i+1])
	})
}

// perform does works of one group, of different pages.
func (e *engine) perform(ctx context.Context, all []*work) error {
	left, err := e.together(ctx, all)
	if err != nil {
		return err
	}
	return e.each(len(left), func(i int) error { return e.run(ctx, left[i]) })
}

// each calls do with 0 to n-1, Options.Parallel at once, and returns the first
// failure.
func (e *engine) each(n int, do func(i int) error) error {
	if n == 1 {
		return do(0)
	}
	errs := make([]error, n)
	permits := make(chan struct{}, e.o.Parallel)
	var wg sync.WaitGroup
	for i := range n {
		permits <- struct{}{}
		wg.Go(func() {
			errs[i] = do(i)
			<-permits
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// Begin implements replaystate.Engine.
func (e *engine) Begin(ctx context.Context, group string, r []replaystate.Request) ([]replaystate.Claim, replaystate.Stamp, error) {
	out, items := make([]replaystate.Claim, len(r)), make([]item, len(r))
	for i := range r {
		items[i] = item{r[i].Key, r[i].Sequence, r[i].Previous}
	}
	begin := func(i int, env *replaystate.Env, s replaystate.Stream) { out[i] = replaystate.Begin(env, s, &r[i]) }
	stamp, err := e.batch(ctx, group, items, begin)
	full := slices.ContainsFunc(out, func(c replaystate.Claim) bool {
		return c.Outcome == replaystate.Full || c.Outcome == replaystate.Quota
	})
	if err == nil && full && e.sweepNow(ctx, group) {
		stamp, err = e.batch(ctx, group, items, begin) // the same tokens, the same claims
	}
	for i := range out {
		if err == nil && out[i].Outcome == replaystate.Busy {
			e.awaitLapse(group, r[i].Key, r[i].Sequence)
		}
	}
	e.sweepIfDue(group)
	return out, stamp, err
}

// Renew implements replaystate.Engine.
func (e *engine) Renew(ctx context.Context, group string, l []replaystate.Lease) ([]replaystate.Outcome, replaystate.Stamp, error) {
	out, items := make([]replaystate.Outcome, len(l)), make([]item, len(l))
	for i := range l {
		items[i] = item{l[i].Key, l[i].Sequence, 0}
	}
	stamp, err := e.batch(ctx, group, items, func(i int, env *replaystate.Env, s replaystate.Stream) {
		out[i] = replaystate.Extend(env, s, &l[i])
	})
	e.sweepIfDue(group)
	return out, stamp, err
}

// Finish implements replaystate.Engine.
func (e *engine) Finish(ctx context.Context, group string, f []replaystate.Finish) ([]replaystate.Outcome, replaystate.Stamp, error) {
	out, items := make([]replaystate.Outcome, len(f)), make([]item, len(f))
	for i := range f {
		items[i] = item{f[i].Key, f[i].Sequence, 0}
	}
	stamp, err := e.batch(ctx, group, items, func(i int, env *replaystate.Env, s replaystate.Stream) {
		out[i] = replaystate.End(env, s, &f[i])
	})
	e.sweepIfDue(group)
	return out, stamp, err
}

// Look implements replaystate.Engine. What is not there says something only if the memory was
// the same before and after the pages were read.
func (e *engine) Look(ctx context.Context, group string, q []replaystate.Query) ([]replaystate.Look, replaystate.Stamp, error) {
	if err := e.check(ctx); err != nil {
		return nil, replaystate.Stamp{}, err
	}
	for range maxMemories {
		before := e.stamped()
		g, err := e.group(ctx, group, true)
		if err != nil {
			return nil, replaystate.Stamp{}, err
		}
		out, env := make([]replaystate.Look, len(q)), e.env(group, &g)
		err = e.each(len(q), func(i int) (err error) {
			out[i], err = e.examine(ctx, group, env, &q[i])
			return err
		})
		if err == nil {
			err = e.check(ctx)
		}
		if err != nil {
			return nil, replaystate.Stamp{}, err
		}
		if after := e.stamped(); after.ID == before.ID {
			return out, after, nil
		}
	}
	return nil, replaystate.Stamp{}, errMemories
}

func (e *engine) examine(ctx context.Context, group string, env *replaystate.Env, q *replaystate.Query) (replaystate.Look, error) {
	index := replaystate.IndexOf(q.Sequence, e.o.PageSpan)
	v := &view{ctx: ctx, e: e, w: &work{group: group, key: q.Key, index: index}}
	page, err := e.b.Get(ctx, e.pageKey(group, q.Key, index)) // before the head: it may be folded meanwhile
	if err == nil && page.Version != "" && !isReserved(page) {
		v.page, err = replaystate.DecodePage(page.Value, index, e.o.PageSpan)
	}
	if err != nil {
		return replaystate.Look{}, err
	}
	l := replaystate.Examine(env, v, q)
	return l, v.err
}

// Note implements replaystate.Engine.
func (e *engine) Note(ctx context.Context, group string, n []replaystate.Note) ([]uint64, replaystate.Stamp, error) {
	if err := e.prepare(ctx); err != nil {
		return nil, replaystate.Stamp{}, err
	}
	out := make([]uint64, len(n))
	for i := range n {
		err := e.onHead(ctx, e.headKey(group, n[i].Key), func(h *replaystate.Head) { out[i] = replaystate.Enter(h, &n[i]) })
		if err != nil {
			return nil, replaystate.Stamp{}, err
		}
	}
	return out, e.stamped(), nil
}

// Probe implements replaystate.Engine. It raises the change number.
func (e *engine) Probe(ctx context.Context, group string) (replaystate.Outcome, error) {
	if err := e.current(ctx); err != nil {
		return 0, err
	}
	e.sweepIfDue(group)
	e.mu.Lock()
	defer e.mu.Unlock()
	var store replaystate.Counts
	for _, g := range e.groups {
		store.Add(g.counts)
	}
	return e.limits.Open(store, e.cache(group).counts), nil
}

// onHead changes a head that is there; do may run more than once.
func (e *engine) onHead(ctx context.Context, key string, do func(*replaystate.Head)) error {
	for try := 0; ; try++ {
		item, err := e.b.Get(ctx, key)
		if err != nil || item.Version == "" {
			return err
		}
		h, err := replaystate.DecodeHead(item.Value)
		if err != nil {
			return err
		}
		if do(h); !h.Dirty {
			return nil
		}
		_, done, err := e.b.Swap(ctx, key, item.Version, replaystate.AppendHead(nil, h))
		if err != nil || done {
			return err
		}
		if err := e.pause(ctx, try); err != nil {
			return err
		}
	}
}

// Streams implements replaystate.Engine. It keeps the pages of the group in memory,
// which are few, and reads the heads one by one.
func (e *engine) Streams(ctx context.Context, group string) iter.Seq2[replaystate.Entry, error] {
	return func(yield func(replaystate.Entry, error) bool) {
		g, err := e.group(ctx, group, false)
		if err == nil {
			err = e.prepare(ctx)
		}
		var pages map[replaystate.Key][]storedPage
		start := time.Now()
		if err == nil {
			pages, err = e.readPages(ctx, group)
		}
		if err != nil {
			yield(replaystate.Entry{}, err)
			return
		}
		env := e.env(group, &g)
		for h, err := range e.readHeads(ctx, group) {
			if err != nil {
				yield(replaystate.Entry{}, err)
				return
			}
			var of []*replaystate.Page
			for _, p := range pages[h.key] {
				of = append(of, p.page)
			}
			if !yield(replaystate.Entry{Key: h.key, Account: replaystate.Count(env, h.key, h.head, of)}, nil) {
				return
			}
		}
		if ctx.Err() == nil {
			e.overlook(group, start)
		}
	}
}

// Stats implements replaystate.Engine. It reads everything.
func (e *engine) Stats(ctx context.Context) (replaystate.Stats, error) {
	s := replaystate.Stats{Limits: e.limits, Shared: true, Durable: true}
	if err := e.check(ctx); err != nil {
		return s, err
	}
	s.Stamp = e.stamped()
	for item, err := range e.b.Scan(ctx, e.o.Prefix+".h.") {
		if err != nil {
			return s, err
		}
		h, err := replaystate.DecodeHead(item.Value)
		if err != nil {
			return s, err
		}
		s.Counts.Streams++
		s.Counts.Intervals += int64(len(h.Intervals))
		s.Bytes += int64(len(item.Key) + len(item.Value))
	}
	for item, err := range e.b.Scan(ctx, e.o.Prefix+".p.") {
		if err != nil {
			return s, err
		}
		s.Bytes += int64(len(item.Key) + len(item.Value))
		if isReserved(item) {
			continue
		}
		p, err := replaystate.DecodePage(item.Value, 0, e.o.PageSpan)
		if err != nil {
			return s, err
		}
		s.Counts.Add(size(p))
	}
	return s, ctx.Err()
}
