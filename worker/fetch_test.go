package worker_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/worker"
)

// Slots that come free together are filled by few calls to the broker, not by one
// each; and no call asks for more than there are slots.
func TestPoolFetchesForAllFreeSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const slots, rounds = 16, 20
		calls := &callCounter{Broker: memqueue.New(nil)}
		c, err := queue.New(calls, &queue.Options{Logger: quiet()})
		if err != nil {
			t.Fatal(err)
		}
		s, err := c.Sender(t.Context(), orders, nil)
		if err != nil {
			t.Fatal(err)
		}
		for range slots * rounds {
			if _, err := s.Send(t.Context(), &queue.Message{Body: []byte("x")}); err != nil {
				t.Fatal(err)
			}
		}
		r, err := c.Receiver(t.Context(), orders, nil)
		if err != nil {
			t.Fatal(err)
		}
		p, err := worker.New(&worker.Options{Concurrency: slots})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var running, done atomic.Int64
		h := worker.HandlerFunc(func(context.Context, *queue.Delivery) error {
			if n := running.Add(1); n > slots {
				t.Errorf("%d handlers at once, want %d", n, slots)
			}
			<-time.After(time.Second)
			running.Add(-1)
			if done.Add(1) == slots*rounds {
				cancel()
			}
			return nil
		})
		if err := p.Handle(r, h, nil); err != nil {
			t.Fatal(err)
		}
		if err := p.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if n := calls.received.Load(); n > slots*rounds*3/4 {
			t.Errorf("%d calls for %d messages, of which %d ended together each time", n, slots*rounds, slots)
		}
		if n := calls.most.Load(); n > slots {
			t.Errorf("a call asked for %d messages, and there are %d slots", n, slots)
		}
		t.Logf("%d calls, up to %d messages asked for", calls.received.Load(), calls.most.Load())
		if err := c.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// callCounter counts calls of Receive, and the most messages that one asked for.
type callCounter struct {
	driver.Broker
	received, most atomic.Int64
}

func (c *callCounter) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := c.Broker.Open(ctx, name, o)
	return &callQueue{q, c}, err
}

type callQueue struct {
	driver.Queue
	c *callCounter
}

func (q *callQueue) Receive(ctx context.Context, n int, wait time.Duration) ([]*driver.Delivery, error) {
	q.c.received.Add(1)
	q.c.most.Store(max(q.c.most.Load(), int64(n)))
	return q.Queue.Receive(ctx, n, wait)
}
