package queue_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
)

// clockBehind is a broker whose clock is a minute behind while it is on: the lock of each
// message has ended, by its word, when the message arrives.
type clockBehind struct {
	driver.Broker
	on      atomic.Bool
	fetched atomic.Int32 // messages
}

func (b *clockBehind) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := b.Broker.Open(ctx, name, o)
	return &clockBehindQueue{q, b}, err
}

type clockBehindQueue struct {
	driver.Queue
	b *clockBehind
}

func (q *clockBehindQueue) Receive(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
	all, err := q.Queue.Receive(ctx, max, wait)
	q.b.fetched.Add(int32(len(all))) //nolint:gosec // G115: few
	for _, d := range all {
		if q.b.on.Load() {
			d.LockedUntil = d.LockedUntil.Add(-time.Minute)
		}
	}
	return all, err
}

// Messages whose locks have always ended on arrival end a loop with an error that says so,
// after few deliveries. Callers of Receive are told to wait longer and longer. Once a message
// comes in time all is well.
func TestLocksThatEndOnArrival(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		b := &clockBehind{Broker: x.Broker}
		b.on.Store(true)
		c, err := queue.New(b, &queue.Options{Keys: x.Ring, Logger: quiet(), Crypto: queue.CryptoConfig{Enabled: true, MaxMessageAge: 24 * time.Hour}})
		x.Must(err)
		r, err := c.Receiver(x.Context(), orders, &queue.ReceiverOptions{Wait: time.Second})
		x.Must(err)
		const n = 5
		for range n {
			x.Send(&queue.Message{Body: []byte("a")})
		}
		for d, err := range r.All(x.Context()) {
			if d != nil || !errors.Is(err, queue.ErrLockLost) {
				x.Fatalf("All: %v, %v; want ErrLockLost", d, err)
			}
		}
		if got := b.fetched.Load(); got > 3 {
			x.Errorf("%d messages were fetched, want 3 at most", got)
		}
		for i, want := range []time.Duration{2, 4, 8, 16, 32, 64, 128, 256, 300, 300} {
			ds, err := r.Receive(x.Context(), 2)
			var e *queue.Error
			if len(ds) > 0 || !errors.Is(err, queue.ErrLockLost) || !errors.As(err, &e) || e.RetryAfter != want*time.Second {
				x.Fatalf("call %d: %d messages, %+v; want ErrLockLost and RetryAfter %s", i, len(ds), err, want*time.Second)
			}
		}
		b.on.Store(false)
		if got := x.drain(r, time.Minute); got != n {
			x.Errorf("%d of %d were delivered once the clock was right", got, n)
		}
		b.on.Store(true)
		x.Send(&queue.Message{Body: []byte("a")})
		if _, err := r.Receive(x.Context(), 1); err != nil {
			x.Errorf("the first fetch that is late: %v, want none: it can be chance", err)
		}
		x.Must(c.Close(x.Context()))
	})
}
