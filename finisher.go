package queue

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"github.com/queue-runtime/queue/replay"
)

// finisher ends claims with few calls to the replay store: callers that come together share
// a call, and those that come while a call is under way share the next. So a store costs
// one round trip for a batch that is completed by many goroutines, and none waits longer
// than for two calls, as long as no more than replay.MaxBatch wait.
//
// The call of a caller that shares it with none runs on that caller's goroutine and
// context. A shared call is no caller's: it runs on a goroutine of its own, which ends when
// none waits any more, and within settleTimeout. Its invariant: a caller leaves when its
// own context ends, and a call that panics leaves the finisher usable.
type finisher struct {
	store replay.Store
	group string

	mu      sync.Mutex // guards what follows; never held across a call
	calling bool       // a call is under way, or share is
	waiting []*finishing
}

// finishing is a claim that waits to be ended.
type finishing struct {
	item     replay.Finish
	err      error         // once done is closed
	panicked any           // once done is closed: what the call panicked with, nil if it did not
	done     chan struct{} // closed when the call for it has ended
}

func newFinisher(s replay.Store, group string) *finisher { return &finisher{store: s, group: group} }

// finish ends one claim. When ctx ends first the claim may end all the same; calling
// again is fine.
func (f *finisher) finish(ctx context.Context, item replay.Finish) error {
	f.mu.Lock()
	if f.calling {
		w := f.enter(item)
		f.mu.Unlock()
		return f.await(ctx, w)
	}
	f.calling = true
	f.mu.Unlock()
	if !f.joined() {
		return f.alone(ctx, item)
	}
	f.mu.Lock()
	w := f.enter(item)
	f.mu.Unlock()
	go f.share(context.WithoutCancel(ctx), f.take())
	return f.await(ctx, w)
}

// joined lets other goroutines run as long as more of them come to end a claim, and reports
// whether any came: those that were answered together, or received a batch together, end
// their claims together. If the first went at once, it would make a group of its own, and
// the others another one.
func (f *finisher) joined() bool {
	n := 0
	for last := -1; last < n && n < replay.MaxBatch; n = f.count() {
		last = n
		runtime.Gosched()
	}
	return n > 0
}

// count returns how many claims wait for the next call.
func (f *finisher) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.waiting)
}

// enter makes a claim wait for the next call. Called under mu.
func (f *finisher) enter(item replay.Finish) *finishing {
	w := &finishing{item: item, done: make(chan struct{})}
	f.waiting = append(f.waiting, w)
	return w
}

// await waits for the call that ends w.
func (f *finisher) await(ctx context.Context, w *finishing) error {
	select {
	case <-w.done:
	case <-ctx.Done():
		f.withdraw(w)
		return ctx.Err()
	}
	if w.panicked != nil {
		panic(w.panicked) // as if the caller had made the call
	}
	return w.err
}

// withdraw takes w back unless it was taken up.
func (f *finisher) withdraw(w *finishing) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if i := slices.Index(f.waiting, w); i >= 0 {
		f.waiting = slices.Delete(f.waiting, i, i+1)
	}
}

// alone makes one call for item, and has another goroutine make those for the claims that
// came meanwhile.
func (f *finisher) alone(ctx context.Context, item replay.Finish) error {
	defer func() {
		if batch := f.take(); batch != nil {
			go f.share(context.WithoutCancel(ctx), batch)
		}
	}()
	if _, bounded := ctx.Deadline(); !bounded { // one for each call would cost more than the call to a store in memory
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, settleTimeout)
		defer cancel()
	}
	results, err := f.store.Finish(ctx, f.group, []replay.Finish{item})
	return answerOf(results, err, 0)
}

// share makes calls until no claim waits.
func (f *finisher) share(ctx context.Context, batch []*finishing) {
	for ; batch != nil; batch = f.take() {
		f.call(ctx, batch)
	}
}

// take returns the claims of the next call. If none waits it returns nil, and the next
// caller calls alone.
func (f *finisher) take() []*finishing {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := min(len(f.waiting), replay.MaxBatch)
	if n == 0 {
		f.calling = false
		return nil
	}
	batch := f.waiting[:n:n]
	f.waiting = f.waiting[n:]
	return batch
}

// call makes one call for batch.
func (f *finisher) call(ctx context.Context, batch []*finishing) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			for _, w := range batch {
				w.panicked = p
			}
		}
		for _, w := range batch {
			close(w.done)
		}
	}()
	items := make([]replay.Finish, len(batch))
	for i, w := range batch {
		items[i] = w.item
	}
	results, err := f.store.Finish(ctx, f.group, items)
	for i, w := range batch {
		w.err = answerOf(results, err, i)
	}
}

// answerOf is the answer to item i of a call.
func answerOf(results []replay.Finished, err error, i int) error {
	switch {
	case err != nil:
		return err
	case i >= len(results):
		return fmt.Errorf("%w: it returned too few results", ErrReplayStore)
	}
	return results[i].Err
}
