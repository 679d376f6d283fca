package cas

import (
	"context"
	"slices"

	"github.com/queue-runtime/queue/internal/replaystate"
)

// turn is the right of one call to write pages for this Store. Calls that come meanwhile
// wait, and then one of them writes for all: calls of one process do not meet each
// other's changes, and many small ones share a request.
type turn struct{ waiting []*seat }

// seat is a call that waits for its turn.
type seat struct {
	works []*work
	wake  chan struct{} // closed once the fields below are set
	// written: another call has done the works.
	written bool
	// others are calls to do the works of. Only if the turn is this call's.
	others []*seat
	leads  bool
}

// inTurn performs works when no other call of this Store writes what key stands for.
func (e *engine) inTurn(ctx context.Context, key string, works []*work) error {
	s := &seat{works: works, wake: make(chan struct{})}
	e.mu.Lock()
	t := e.turns[key]
	free := t == nil
	if free {
		t = &turn{}
		e.turns[key] = t
		s.leads = true
	} else {
		t.waiting = append(t.waiting, s)
	}
	e.mu.Unlock()
	if !free {
		if err := e.await(ctx, t, s); err != nil {
			return err
		}
	}
	switch {
	case s.written:
		return nil
	case !s.leads:
		// It failed together with others: its own pages may be sound, or its
		// own context live.
		return e.perform(ctx, works)
	}
	all := merge(s)
	err := e.perform(ctx, all)
	e.mu.Lock()
	defer e.mu.Unlock()
	doubted := slices.ContainsFunc(all, func(w *work) bool { return w.doubted })
	s.works[0].doubted = doubted
	for _, o := range s.others {
		o.works[0].doubted = doubted
		o.written = err == nil
		close(o.wake)
	}
	if len(t.waiting) == 0 {
		delete(e.turns, key)
		return err
	}
	next := t.waiting[0]
	next.leads, next.others, t.waiting = true, t.waiting[1:], nil
	close(next.wake)
	return err
}

// await waits until it is a call's turn, or its works are done. A call whose works are
// under way waits for their end, although its own context is over: they write into what
// belongs to the call.
func (e *engine) await(ctx context.Context, t *turn, s *seat) error {
	select {
	case <-s.wake:
		return nil
	case <-ctx.Done():
	}
	e.mu.Lock()
	if i := slices.Index(t.waiting, s); i >= 0 {
		t.waiting = slices.Delete(t.waiting, i, i+1)
		e.mu.Unlock()
		return ctx.Err()
	}
	e.mu.Unlock()
	<-s.wake
	return nil
}

// merge returns the works of a call and of those that it acts for, one for each page.
func merge(s *seat) []*work {
	if len(s.others) == 0 {
		return s.works
	}
	var all []*work
	parts := make(map[pageID][]*work)
	for _, o := range append([]*seat{s}, s.others...) {
		for _, w := range o.works {
			if parts[w.page()] == nil {
				all = append(all, &work{group: w.group, key: w.key, index: w.index})
			}
			parts[w.page()] = append(parts[w.page()], w)
		}
	}
	for _, w := range all {
		of := parts[w.page()]
		w.apply = func(env *replaystate.Env, s replaystate.Stream) {
			for _, part := range of {
				part.apply(env, s)
			}
		}
	}
	return all
}
