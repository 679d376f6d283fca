package queue

import (
	"context"
	"fmt"
	"sync"

	"github.com/queue-runtime/queue/replay"
)

// finisher ends claims with few calls to the replay store: the first goes at once, and
// those that come while a call is under way share the next. So a store costs one round
// trip for a batch that is completed by many goroutines, and none waits longer than for
// two calls.
type finisher struct {
	store replay.Store
	group string

	mu      sync.Mutex // guards what follows; never held across a call
	calling bool       // a call is under way
	waiting []*finishing
}

// finishing is a claim that waits to be ended.
type finishing struct {
	item replay.Finish
	err  error         // once done is closed
	lead bool          // once done is closed: the caller is to make the next call itself
	done chan struct{} // closed when err or lead is set
}

func newFinisher(s replay.Store, group string) *finisher { return &finisher{store: s, group: group} }

// finish ends one claim. When ctx ends first the claim may end all the same; calling
// again is fine.
func (f *finisher) finish(ctx context.Context, item replay.Finish) error {
	f.mu.Lock()
	if !f.calling {
		f.calling = true
		f.mu.Unlock()
		return f.call(ctx, item, nil)
	}
	w := &finishing{item: item, done: make(chan struct{})}
	f.waiting = append(f.waiting, w)
	f.mu.Unlock()
	select {
	case <-w.done:
	case <-ctx.Done():
		if f.withdraw(w) {
			return ctx.Err()
		}
		<-w.done // a call for it is under way, or it leads the next
	}
	if !w.lead {
		return w.err
	}
	f.mu.Lock()
	others := f.waiting
	f.waiting = nil
	f.mu.Unlock()
	return f.call(ctx, item, others)
}

// withdraw takes w back unless it was taken up.
func (f *finisher) withdraw(w *finishing) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, x := range f.waiting {
		if x == w {
			f.waiting = append(f.waiting[:i], f.waiting[i+1:]...)
			return true
		}
	}
	return false
}

// call makes one call for item and others, and lets one of those that came meanwhile make
// the next.
func (f *finisher) call(ctx context.Context, item replay.Finish, others []*finishing) error {
	items := make([]replay.Finish, 1, 1+len(others))
	items[0] = item
	for _, w := range others {
		items = append(items, w.item)
	}
	if len(others) > 0 {
		// Not one caller's to end.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
		defer cancel()
	}
	results, err := f.store.Finish(ctx, f.group, items)
	answer := func(i int) error {
		switch {
		case err != nil:
			return err
		case i >= len(results):
			return fmt.Errorf("%w: it returned too few results", ErrReplayStore)
		}
		return results[i].Err
	}
	for i, w := range others {
		w.err = answer(i + 1)
		close(w.done)
	}
	f.next()
	return answer(0)
}

// next hands the turn to the first that waits.
func (f *finisher) next() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.waiting) == 0 {
		f.calling = false
		return
	}
	w := f.waiting[0]
	f.waiting = f.waiting[1:]
	w.lead = true
	close(w.done)
}
