package worker_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/worker"
)

// liar is a broker that lies about all that is not authentic of a delivery, each time
// differently.
type liar struct {
	driver.Broker
	mu sync.Mutex // guards r
	r  *rand.Rand
}

func (b *liar) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := b.Broker.Open(ctx, name, o)
	return &lyingQueue{q, b}, err
}

// time is any time: mostly a sensible one, for about now.
func (b *liar) time(honest time.Time) time.Time {
	switch b.r.IntN(8) {
	case 0:
		return time.Time{}
	case 1:
		return time.Now().Add(-300 * 24 * time.Hour)
	case 2:
		return time.Now().Add(290 * 365 * 24 * time.Hour)
	case 3:
		return time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	case 4:
		return time.Date(-9999, 1, 1, 0, 0, 0, 0, time.UTC)
	case 5:
		return time.Now()
	}
	return honest
}

func (b *liar) lie(all []*driver.Delivery) {
	b.mu.Lock()
	defer b.mu.Unlock()
	counts := []int{0, -1, -1 << 62, 1, 2, 3}
	for _, d := range all {
		d.EnqueuedAt, d.LockedUntil = b.time(d.EnqueuedAt), b.time(d.LockedUntil)
		d.Count = counts[b.r.IntN(len(counts))]
		d.BrokerID = fmt.Sprint(b.r.IntN(3))
	}
}

type lyingQueue struct {
	driver.Queue
	b *liar
}

func (q *lyingQueue) Receive(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
	all, err := q.Queue.Receive(ctx, max, wait)
	q.b.lie(all)
	return all, err
}

func (q *lyingQueue) Renew(ctx context.Context, d []*driver.Delivery) []driver.RenewResult {
	results := q.Queue.Renew(ctx, d)
	q.b.mu.Lock()
	defer q.b.mu.Unlock()
	for i := range results {
		results[i].LockedUntil = q.b.time(results[i].LockedUntil)
		d[i].LockedUntil = results[i].LockedUntil
	}
	return results
}

// A broker that lies about counts, times and its IDs has nothing handled again that was
// completed, and loses nothing.
func TestBrokerLies(t *testing.T) {
	for seed := range uint64(soak(6, 600)) {
		inBubble(t, nil, func(x *fixture) {
			const messages = 60
			for i := range messages {
				x.Send(&queue.Message{ID: fmt.Sprint(i), Body: []byte("a")})
			}
			var mu sync.Mutex
			completed := make(map[string]int)
			r := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // G404: a schedule, not a secret
			h := worker.HandlerFunc(func(ctx context.Context, d *queue.Delivery) error {
				mu.Lock()
				wait, fails := time.Duration(r.IntN(60))*time.Second, r.IntN(4) == 0
				mu.Unlock()
				select {
				case <-time.After(wait):
				case <-ctx.Done():
					return ctx.Err()
				}
				if fails {
					return errors.New("not now")
				}
				err := d.Complete(ctx)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					completed[d.ID]++
				} else if _, ok := completed[d.ID]; !ok {
					completed[d.ID] = 0 // perhaps
				}
				return err
			})
			var stops []func() error
			for n := range uint64(2) {
				c, err := queue.New(&liar{Broker: x.Broker.Connect(), r: rand.New(rand.NewPCG(seed, n+2))}, &queue.Options{
					Keys: x.Ring, ReplayStore: x.Store, Logger: quiet(),
					Crypto: queue.CryptoConfig{Enabled: true, PlaintextPolicy: queue.Reject, TrackReplays: true, MaxMessageAge: 24 * time.Hour},
				})
				x.Must(err)
				defer func() { x.Must(c.Close(context.Background())) }()
				rc, err := c.Receiver(x.Context(), orders, &queue.ReceiverOptions{Wait: time.Minute})
				x.Must(err)
				_, stop := x.run(rc, h, &worker.Options{Concurrency: 8}, nil)
				stops = append(stops, stop)
			}
			left := func() int64 {
				st, err := x.Receiver(orders, nil).Stats(x.Context())
				x.Must(err)
				return st.Ready + st.Scheduled + st.InFlight
			}
			for begin := time.Now(); left() > 0 && time.Since(begin) < 30*24*time.Hour; {
				x.Wait(time.Hour)
			}
			for _, stop := range stops {
				x.Must(stop())
			}
			for id, n := range completed {
				if n > 1 {
					x.Errorf("seed %d: %s was completed %d times", seed, id, n)
				}
			}
			// What was completed in the store and not at the broker is completed when it comes again.
			if waiting, dead := len(x.Stored(orders)), len(x.DeadReasons(orders)); waiting > 0 || dead+len(completed) < messages {
				x.Errorf("seed %d: %d waiting, %d dead and %d completed of %d", seed, waiting, dead, len(completed), messages)
			}
		})
	}
}
