package worker_test

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/worker"
)

// slowRenewals is a provider whose renewals take a second, and which counts those of
// one delivery that meet: the contract of driver.Source forbids it.
type slowRenewals struct {
	driver.Broker
	under, met, calls atomic.Int32
}

func (p *slowRenewals) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := p.Broker.Open(ctx, name, o)
	return &slowRenewalQueue{q, p}, err
}

type slowRenewalQueue struct {
	driver.Queue
	p *slowRenewals
}

func (q *slowRenewalQueue) Renew(ctx context.Context, d []*driver.Delivery) []driver.RenewResult {
	q.p.calls.Add(1)
	if q.p.under.Add(1) > 1 {
		q.p.met.Add(1)
	}
	answer := time.NewTimer(time.Second)
	defer answer.Stop()
	<-answer.C
	q.p.under.Add(-1)
	return q.Queue.Renew(ctx, d)
}

// However many callers renew one delivery, the Pool and its handler among them, the
// driver sees one renewal of it at a time, and each caller gets a lock.
func TestRenewalsOfOneDeliveryDoNotMeet(t *testing.T) {
	p := &slowRenewals{}
	inBubble(t, func(x *fixture, _ *queue.Options) { p.Broker = x.Broker }, func(x *fixture) {
		x.Send(&queue.Message{ID: "m", Body: []byte("a")})
		client, err := queue.New(p, &queue.Options{Keys: x.Ring, Logger: quiet()})
		x.Must(err)
		r, err := client.Receiver(x.Context(), orders, nil)
		x.Must(err)
		pool, err := worker.New(nil)
		x.Must(err)
		ctx, stop := context.WithCancel(x.Context())
		defer stop()
		x.Must(pool.Handle(r, worker.HandlerFunc(func(ctx context.Context, d *queue.Delivery) error {
			defer stop()
			done := make(chan error)
			for range 3 {
				go func() {
					for range 40 {
						if err := d.Renew(ctx); err != nil {
							done <- err
							return
						}
					}
					done <- nil
				}()
			}
			for range 3 {
				if err := <-done; err != nil {
					x.Errorf("Renew: %v", err)
				}
			}
			if left := time.Until(d.HeldUntil()); left < 29*time.Second {
				x.Errorf("locked for %s after a renewal, want about 30 s", left)
			}
			return ctx.Err()
		}), nil))
		x.Must(pool.Run(ctx))
		if n := p.met.Load(); n > 0 || p.calls.Load() < 120 {
			x.Errorf("%d of %d renewals met another", n, p.calls.Load())
		}
	})
}

// renewalSizes remembers how many deliveries each call of Renew had.
type renewalSizes struct {
	driver.Broker
	mu    sync.Mutex
	sizes []int
}

func (p *renewalSizes) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := p.Broker.Open(ctx, name, o)
	return &renewalSizesQueue{q, p}, err
}

type renewalSizesQueue struct {
	driver.Queue
	p *renewalSizes
}

func (q *renewalSizesQueue) Renew(ctx context.Context, d []*driver.Delivery) []driver.RenewResult {
	q.p.mu.Lock()
	q.p.sizes = append(q.p.sizes, len(d))
	q.p.mu.Unlock()
	return q.Queue.Renew(ctx, d)
}

// TestRenewalsGoTogether: the locks of a queue's messages that are due at the same time
// are extended by one call.
func TestRenewalsGoTogether(t *testing.T) {
	p := &renewalSizes{}
	inBubble(t, func(x *fixture, _ *queue.Options) { p.Broker = x.Broker }, func(x *fixture) {
		client, err := queue.New(p, &queue.Options{Keys: x.Ring, ReplayStore: x.Store, Logger: quiet(), Crypto: queue.CryptoConfig{Enabled: true, TrackReplays: true}})
		x.Must(err)
		for range 8 {
			x.Send(&queue.Message{Body: []byte("a")})
		}
		r, err := client.Receiver(x.Context(), orders, &queue.ReceiverOptions{Wait: time.Second})
		x.Must(err)
		h := worker.HandlerFunc(func(ctx context.Context, _ *queue.Delivery) error {
			select {
			case <-time.After(50 * time.Second): // between two renewals
				return nil
			case <-ctx.Done():
				x.Errorf("a handler's context ended: %v", context.Cause(ctx))
				return ctx.Err()
			}
		})
		_, stop := x.run(r, h, nil, nil)
		x.Pass(2 * time.Minute)
		x.Must(stop())
		if !slices.Equal(p.sizes, []int{8, 8, 8}) {
			x.Errorf("calls for %v deliveries, want 8 each at 15, 30 and 45 s", p.sizes)
		}
	})
}
