package worker

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// maxIsolationWait bounds how long a message that is to be handled alone waits for the
// handlers that are running: a handler that never returns must not stop its queue.
const maxIsolationWait = 30 * time.Second

// isolation lets one message of a queue be handled alone: a message that may have ended
// its process before takes no neighbours along if it does so again. Those of other queues
// that are handled meanwhile are there for the first time: see precede. It is safe for
// concurrent use.
type isolation struct {
	// trustAfter is after how many messages that were handled alone, and returned, the
	// queue counts as harmless. A crash leaves no more suspects behind than handlers of the
	// queue run at once and messages of the pool are completed at once, so the one that
	// caused it is among them. This bounds what a backlog of failures elsewhere costs: it
	// looks the same.
	trustAfter int

	// running counts handlers, and alone says that one is handled alone or waits to be; it is
	// written under mu. A handler that begins counts itself and then looks at alone; one that
	// is to be alone sets it and then looks at the count: one of them sees the other.
	running atomic.Int64
	alone   atomic.Bool

	mu       sync.Mutex    // guards what follows
	returned int           // how many were handled alone and returned
	changed  chan struct{} // closed at the next change; nil if nothing waits for it
}

func newIsolation(trustAfter int) *isolation {
	return &isolation{trustAfter: trustAfter}
}

// trusts reports whether suspects need not be handled alone any more.
func (s *isolation) trusts() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.returned >= s.trustAfter
}

// enter begins an ordinary handler. It waits while another message is handled alone, and
// reports false if ctx ends first.
func (s *isolation) enter(ctx context.Context) bool {
	for {
		s.running.Add(1)
		if !s.alone.Load() {
			return true
		}
		s.leave()
		if !s.await(ctx, nil, func() bool { return !s.alone.Load() }) {
			return false
		}
	}
}

// leave ends what enter began.
func (s *isolation) leave() {
	if s.running.Add(-1) > 0 || !s.alone.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tell()
}

// enterAlone begins a handler that runs alone: it keeps others from beginning, and waits
// for those that run, up to maxIsolationWait. It returns nil if ctx ends first.
func (s *isolation) enterAlone(ctx context.Context) *turn {
	ok := s.await(ctx, nil, func() bool {
		return s.alone.CompareAndSwap(false, true)
	})
	if !ok {
		return nil
	}
	timer := time.NewTimer(maxIsolationWait)
	defer timer.Stop()
	t := &turn{of: s}
	if s.await(ctx, timer.C, func() bool { return s.running.Load() == 0 }) || ctx.Err() == nil {
		return t
	}
	t.giveWay()
	return nil
}

// turn is the time in which one message is handled alone.
type turn struct {
	of    *isolation
	over  bool          // others may begin; guarded by of.mu
	timer *time.Timer   // of giveWay; nil if nothing bounds the turn
	first chan struct{} // of the pool, to be emptied at the end; nil if it is not taken
}

// precede keeps messages of other queues of the pool from being handled alone at the same
// time: one that ends the process would use up the deliveries of the same message of each of
// them, time after time. It waits for one that is, for maxIsolationWait at most, because
// queues must not stop each other. It reports false if ctx ends first.
func (t *turn) precede(ctx context.Context, first chan struct{}) bool {
	timer := time.NewTimer(maxIsolationWait)
	defer timer.Stop()
	select {
	case first <- struct{}{}:
		t.first = first
		return true
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// limit ends the turn after d, and then calls gaveWay: a handler that never returns must
// not stop its queue. It is not counted among the handlers that run, for which the next
// message that is handled alone would wait in vain.
func (t *turn) limit(d time.Duration, gaveWay func()) {
	t.timer = time.AfterFunc(d, func() {
		t.giveWay()
		gaveWay()
	})
}

// giveWay ends the turn, whether or not the handler has returned.
func (t *turn) giveWay() {
	t.of.mu.Lock()
	defer t.of.mu.Unlock()
	t.end()
}

// leave ends the turn when the handler has returned.
func (t *turn) leave() {
	if t.timer != nil {
		t.timer.Stop()
	}
	t.of.mu.Lock()
	defer t.of.mu.Unlock()
	t.of.returned++
	t.end()
}

// end is called under of.mu.
func (t *turn) end() {
	if t.over {
		return
	}
	t.over = true
	if t.first != nil {
		<-t.first
	}
	t.of.alone.Store(false)
	t.of.tell()
}

// tell wakes those that wait. Called under mu.
func (s *isolation) tell() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// await waits until ready, which is called under mu; false if ctx ends or over fires
// first.
func (s *isolation) await(ctx context.Context, over <-chan time.Time, ready func() bool) bool {
	for {
		s.mu.Lock()
		if ready() {
			s.mu.Unlock()
			return true
		}
		if s.changed == nil {
			s.changed = make(chan struct{})
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-over:
			return false
		case <-ctx.Done():
			return false
		}
	}
}
