package postgresqueue

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"time"
)

// settler settles what several goroutines settle at the same time with few calls: those
// that come while a call is under way share the next. So workers that complete one message
// each share transactions and waits for the disk, and none waits longer than for two
// calls.
//
// A call for one caller runs on that caller's goroutine and context. A shared one is no
// caller's: it runs on a goroutine of the settler, within Options.Timeout.
type settler struct {
	perform func(context.Context, []order) ([]bool, error)

	busy sync.WaitGroup // callers and goroutines; callers come under mu while not closed

	mu      sync.Mutex // guards what follows; never held across a call
	calling bool       // a call is under way, or share is
	closed  bool
	waiting []*joined
}

// joined is a caller that waits.
type joined struct {
	orders []order
	done   []bool // once ended is closed, like err
	err    error
	ended  chan struct{} // closed when the call for it has ended
}

const (
	// sharedOrders is how many settlements a shared call takes up to the last caller's.
	sharedOrders = 500

	// stalled is how long a caller waits for the call before its own. Most take some
	// milliseconds. One on a dead connection takes Options.Timeout and holds up no other.
	stalled = 250 * time.Millisecond
)

// settle settles orders, and says of each whether its lock was still there. If ctx ends
// first they may be settled all the same.
func (s *settler) settle(ctx context.Context, orders []order) ([]bool, error) {
	w := &joined{orders: orders, ended: make(chan struct{})}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return s.perform(ctx, orders)
	}
	s.busy.Add(1)
	s.waiting = append(s.waiting, w)
	s.mu.Unlock()
	defer s.busy.Done()
	runtime.Gosched() // handlers that end at about the same time share one call
	if s.lead(ctx, w) {
		defer s.next(ctx)
		return s.perform(ctx, orders)
	}
	t := time.NewTimer(stalled)
	defer t.Stop()
	select {
	case <-w.ended:
		return w.done, w.err
	case <-t.C:
		if s.withdraw(w) {
			return s.perform(ctx, orders)
		}
	case <-ctx.Done():
		s.withdraw(w)
		return nil, ctx.Err()
	}
	select {
	case <-w.ended:
		return w.done, w.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// lead begins a call if none is under way. It reports whether that is for w alone, and
// the caller's to make.
func (s *settler) lead(ctx context.Context, w *joined) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calling || len(s.waiting) == 0 {
		return false
	}
	s.calling = true
	if len(s.waiting) == 1 && s.waiting[0] == w {
		s.waiting = nil
		return true
	}
	s.start(ctx)
	return false
}

// next has a goroutine make the calls for what came during one.
func (s *settler) next(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calling = len(s.waiting) > 0; s.calling {
		s.start(ctx)
	}
}

// start begins to make calls until no caller waits. It is called under mu.
func (s *settler) start(ctx context.Context) {
	s.busy.Go(func() {
		for batch := s.take(); batch != nil; batch = s.take() {
			s.share(context.WithoutCancel(ctx), batch)
		}
	})
}

// take returns the callers of the next call. If none waits it returns nil, and the next
// one leads.
func (s *settler) take() []*joined {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, orders := 0, 0
	for n < len(s.waiting) && orders < sharedOrders {
		orders += len(s.waiting[n].orders)
		n++
	}
	batch := s.waiting[:n:n]
	s.waiting = s.waiting[n:]
	if s.calling = n > 0; !s.calling {
		return nil
	}
	return batch
}

// share makes one call for several callers.
func (s *settler) share(ctx context.Context, batch []*joined) {
	var all []order
	for _, w := range batch {
		all = append(all, w.orders...)
	}
	done, err := s.perform(ctx, all)
	for _, w := range batch {
		if w.err = err; err == nil {
			w.done, done = done[:len(w.orders)], done[len(w.orders):]
		}
		close(w.ended)
	}
}

// withdraw takes w back, and reports false if it was taken up.
func (s *settler) withdraw(w *joined) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.waiting, w)
	if i >= 0 {
		s.waiting = slices.Delete(s.waiting, i, i+1)
	}
	return i >= 0
}

// close waits for callers and shared calls. Later calls share none.
func (s *settler) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.busy.Wait()
}
