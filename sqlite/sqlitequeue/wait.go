package sqlitequeue

import (
	"context"
	"sync"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// notifier wake the calls of this process that wait for a queue, by its number.
type notifier struct {
	mu       sync.Mutex // guards what follows
	notifier map[int64]chan struct{}
}

// signal returns a channel that the next ring of that queue closes. A caller takes it
// before it looks at the queue, so that it misses no ring in between.
func (b *notifier) signal(queue int64) <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.notifier[queue]
	if c == nil {
		if b.notifier == nil {
			b.notifier = make(map[int64]chan struct{})
		}
		c = make(chan struct{})
		b.notifier[queue] = c
	}
	return c
}

func (b *notifier) ring(queues ...int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, queue := range queues {
		if c := b.notifier[queue]; c != nil {
			close(c)
			delete(b.notifier, queue)
		}
	}
}

func (b *notifier) ringAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for queue, c := range b.notifier {
		close(c)
		delete(b.notifier, queue)
	}
}

// lookAgain is how long a call that waits for dead letters sleeps at most: what
// its own process sends and locks can become one, and does not ring for it.
const lookAgain = time.Second

// lookResult is what an attempt found: whether it is done, and when, in Unix
// nanoseconds, time alone may change its answer; 0 if it will not.
type lookResult struct {
	done bool
	next int64
}

// await calls try until it is done, wait is over, ctx ends or the source closes.
// In between it sleeps until something happens to the queue.
func (s *source) await(ctx context.Context, wait time.Duration, try func() (lookResult, error)) error {
	var deadline time.Time // by the monotonic clock
	watching := false
	defer func() {
		if watching {
			s.broker.file.Watch(false)
		}
	}()
	for {
		signal := s.broker.notifier.signal(s.queue)
		look, err := try()
		if err != nil || look.done {
			return err
		}
		now := time.Now()
		if deadline.IsZero() {
			deadline = now.Add(wait)
		}
		left := deadline.Sub(now)
		if wait <= 0 || left <= 0 {
			return nil
		}
		if !watching {
			// From here on commits of other processes ring, too. One that
			// came before is found by trying once more.
			watching = true
			s.broker.file.Watch(true)
			continue
		}
		if s.queue < 0 {
			left = min(left, lookAgain)
		}
		if look.next > 0 {
			left = min(left, max(0, time.Duration(look.next-now.UnixNano())))
		}
		if err := s.sleep(ctx, left, signal); err != nil {
			return err
		}
	}
}

// sleep waits until the time is over or the bell rings.
func (s *source) sleep(ctx context.Context, d time.Duration, signal <-chan struct{}) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-signal:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.closing:
		return &driver.Error{Kind: driver.Closed}
	}
	return nil
}
