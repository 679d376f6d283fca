package cas

import (
	"context"
	"iter"
	"slices"
	"sync"

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
	if err := e.prepare(ctx); err != nil {
		return replaystate.Stamp{}, err
	}
	first, then := e.plan(group, items, do)
	err := e.parallel(ctx, first)
	for _, w := range then {
		if err == nil {
			err = e.run(ctx, w)
		}
	}
	if err != nil {
		return replaystate.Stamp{}, err
	}
	if slices.ContainsFunc(append(first, then...), func(w *work) bool { return w.made }) {
		// Perhaps nothing was there because the memory is another one.
		if err := e.check(ctx); err != nil {
			return replaystate.Stamp{}, err
		}
	}
	return e.stamped(), nil
}

// plan makes the works of a call. Those in then depend on others: a message whose
// Previous is of the same call and in another page sees what became of it.
func (e *engine) plan(group string, items []item, do func(i int, env *replaystate.Env, s replaystate.Stream)) (first, then []*work) {
	places := make(map[pageID][]int)
	var order []pageID
	for i := range items {
		id := pageID{items[i].key, replaystate.IndexOf(items[i].sequence, span)}
		if places[id] == nil {
			order = append(order, id)
		}
		places[id] = append(places[id], i)
	}
	slices.SortFunc(order, func(a, b pageID) int {
		if a.index < b.index {
			return -1
		}
		return 1
	})
	for _, id := range order {
		mine := places[id]
		w := &work{group: group, key: id.key, index: id.index, apply: func(env *replaystate.Env, s replaystate.Stream) {
			for _, i := range mine {
				do(i, env, s)
			}
		}}
		depends := slices.ContainsFunc(mine, func(i int) bool {
			p := items[i].previous
			if p == 0 {
				return false
			}
			before := replaystate.IndexOf(p, span)
			return before != id.index && places[pageID{id.key, before}] != nil
		})
		if depends {
			then = append(then, w)
		} else {
			first = append(first, w)
		}
	}
	return first, then
}

// parallel runs works side by side and returns the first failure.
func (e *engine) parallel(ctx context.Context, all []*work) error {
	if len(all) == 1 {
		return e.run(ctx, all[0])
	}
	errs := make([]error, len(all))
	permits := make(chan struct{}, e.o.Parallel)
	var wg sync.WaitGroup
	for i, w := range all {
		permits <- struct{}{}
		wg.Go(func() {
			errs[i] = e.run(ctx, w)
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

// Look implements replaystate.Engine.
func (e *engine) Look(ctx context.Context, group string, q []replaystate.Query) ([]replaystate.Look, replaystate.Stamp, error) {
	if err := e.check(ctx); err != nil {
		return nil, replaystate.Stamp{}, err
	}
	g, err := e.group(ctx, group, true)
	if err != nil {
		return nil, replaystate.Stamp{}, err
	}
	out, env := make([]replaystate.Look, len(q)), e.env(group, &g)
	errs := make([]error, len(q))
	permits := make(chan struct{}, e.o.Parallel)
	var wg sync.WaitGroup
	for i := range q {
		permits <- struct{}{}
		wg.Go(func() {
			out[i], errs[i] = e.examine(ctx, group, env, &q[i])
			<-permits
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, replaystate.Stamp{}, err
		}
	}
	return out, e.stamped(), nil
}

func (e *engine) examine(ctx context.Context, group string, env *replaystate.Env, q *replaystate.Query) (replaystate.Look, error) {
	index := replaystate.IndexOf(q.Sequence, span)
	v := &view{ctx: ctx, e: e, w: &work{group: group, key: q.Key, index: index}}
	page, err := e.get(ctx, e.pageKey(group, q.Key, index)) // before the head: it may be folded meanwhile
	if err == nil && page.Version != "" && !isReserved(page) {
		v.page, err = replaystate.DecodePage(page.Value, index, span)
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
		item, err := e.get(ctx, key)
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
		p, err := replaystate.DecodePage(item.Value, 0, span)
		if err != nil {
			return s, err
		}
		s.Counts.Add(size(p))
	}
	return s, ctx.Err()
}
