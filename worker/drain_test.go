package worker_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/worker"
)

// Drains under full load, a thousand of them with QRT_SOAK=1: nothing is lost,
// nothing is settled after Run has returned, no goroutine is left (the bubble would
// not end).
func TestDrainUnderLoad(t *testing.T) {
	const full = 1000
	rounds := soak(20, full)
	for i := range rounds {
		round := i * (full / rounds) // over the whole range of what depends on it
		synctest.Test(t, func(t *testing.T) {
			ctx := t.Context()
			broker := memqueue.New(&memqueue.Options{Default: memqueue.QueueOptions{MaxDeliveries: -1}})
			audit := &auditor{Broker: broker}
			c, err := queue.New(audit, &queue.Options{Keys: newRing(t, "k1"), Logger: quiet(), Crypto: queue.CryptoConfig{Enabled: true}})
			if err != nil {
				t.Fatal(err)
			}
			s, err := c.Sender(ctx, orders, nil)
			if err != nil {
				t.Fatal(err)
			}
			var batch []*queue.Message
			for range 60 {
				batch = append(batch, &queue.Message{Body: []byte("x")})
			}
			if _, err := s.SendBatch(ctx, batch); err != nil {
				t.Fatal(err)
			}
			r, err := c.Receiver(ctx, orders, nil)
			if err != nil {
				t.Fatal(err)
			}
			var handled atomic.Int64
			var mu sync.Mutex
			seen := map[string]int{}
			h := worker.HandlerFunc(func(ctx context.Context, d *queue.Delivery) error {
				select {
				case <-time.After(time.Duration(len(d.ID)+int(d.ID[0])+round) % 40 * time.Millisecond):
				case <-ctx.Done():
					return context.Cause(ctx)
				}
				mu.Lock()
				seen[d.ID]++
				mu.Unlock()
				handled.Add(1)
				return nil
			})
			p, err := worker.New(&worker.Options{Concurrency: 1 + round%16, DrainTimeout: time.Duration(round%50+1) * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Handle(r, h, nil); err != nil {
				t.Fatal(err)
			}
			rctx, cancel := context.WithTimeout(ctx, time.Duration(round%97)*time.Millisecond)
			defer cancel()
			if err := p.Run(rctx); err != nil {
				t.Fatalf("round %d: Run = %v", round, err)
			}
			audit.over.Store(true)
			left, err := broker.Attacker().Read(ctx, orders)
			if err != nil {
				t.Fatal(err)
			}
			if n := len(left) + int(handled.Load()); n != 60 {
				t.Fatalf("round %d: %d handled and %d left of 60", round, handled.Load(), len(left))
			}
			for id, n := range seen {
				if n != 1 {
					t.Fatalf("round %d: %s was handled %d times", round, id, n)
				}
			}
			<-time.After(time.Minute)
			if n := audit.late.Load(); n > 0 {
				t.Fatalf("round %d: %d settles after Run returned", round, n)
			}
			audit.over.Store(false)
			if err := c.Close(ctx); err != nil {
				t.Fatal(err)
			}
		})
		if t.Failed() {
			return
		}
	}
	t.Logf("%d drains", rounds)
}

// auditor counts settles that come too late.
type auditor struct {
	driver.Broker
	over atomic.Bool
	late atomic.Int64
}

func (a *auditor) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := a.Broker.Open(ctx, name, o)
	return &auditedQueue{q, a}, err
}

type auditedQueue struct {
	driver.Queue
	a *auditor
}

func (q *auditedQueue) Settle(ctx context.Context, all []driver.Settlement) []error {
	if q.a.over.Load() {
		q.a.late.Add(1)
	}
	return q.Queue.Settle(ctx, all)
}
