package sqldriver

import (
	"context"
	"sync"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// Arrivals wakes the calls of this process that wait for a queue, by its number. The zero
// value is ready to use. It is safe for concurrent use.
type Arrivals struct {
	mu      sync.Mutex // guards what follows
	waiting map[int64]chan struct{}
}

// Next returns a channel that the next Notify of that queue closes. A call that waits takes it
// before it looks at the queue, so that it misses nothing in between.
func (a *Arrivals) Next(queue int64) <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.waiting[queue]
	if c == nil {
		if a.waiting == nil {
			a.waiting = make(map[int64]chan struct{})
		}
		c = make(chan struct{})
		a.waiting[queue] = c
	}
	return c
}

// Notify wakes those that wait for any of the queues.
func (a *Arrivals) Notify(queues ...int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, queue := range queues {
		if c := a.waiting[queue]; c != nil {
			close(c)
			delete(a.waiting, queue)
		}
	}
}

// NotifyAll wakes all.
func (a *Arrivals) NotifyAll() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for queue, c := range a.waiting {
		close(c)
		delete(a.waiting, queue)
	}
}

// Sleep waits until d is over or something arrived. It fails when ctx ends or h is closed.
func (h *Holder) Sleep(ctx context.Context, d time.Duration, arrived <-chan struct{}) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-arrived:
	case <-ctx.Done():
		return ctx.Err()
	case <-h.closing:
		return &driver.Error{Kind: driver.Closed}
	}
	return nil
}
