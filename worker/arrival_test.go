package worker_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/fixturetest"
	"github.com/queue-runtime/queue/worker"
)

// clockBehind is a broker that counts each delivery, and whose clock is behind by more than
// a lock while it is on: by its word the lock of each message, and of each session, has ended
// when it arrives.
type clockBehind struct {
	countedReleases
	on atomic.Bool
}

func (b *clockBehind) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := b.countedReleases.Open(ctx, name, o)
	return &clockBehindQueue{q, b}, err
}

func (b *clockBehind) shifted(t time.Time) time.Time {
	if b.on.Load() {
		return t.Add(-time.Minute)
	}
	return t
}

type clockBehindQueue struct {
	driver.Queue
	b *clockBehind
}

func (q *clockBehindQueue) Receive(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
	all, err := q.Queue.Receive(ctx, max, wait)
	for _, d := range all {
		d.LockedUntil = q.b.shifted(d.LockedUntil)
	}
	return all, err
}

func (q *clockBehindQueue) Settle(ctx context.Context, all []driver.Settlement) []error {
	for i := range all {
		if all[i].Kind == driver.Release {
			all[i].Kind = driver.Abandon // the delivery counts
		}
	}
	return q.Queue.Settle(ctx, all)
}

func (q *clockBehindQueue) AcceptSession(ctx context.Context, id string, wait time.Duration) (driver.Session, error) {
	s, err := q.Queue.AcceptSession(ctx, id, wait)
	if err != nil {
		return nil, err
	}
	return &clockBehindSession{s, q.b}, nil
}

type clockBehindSession struct {
	driver.Session
	b *clockBehind
}

func (s *clockBehindSession) Unnamed() bool {
	u, ok := s.Session.(driver.UnnamedSession)
	return ok && u.Unnamed()
}

func (s *clockBehindSession) Receive(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
	all, err := s.Session.Receive(ctx, max, wait)
	for _, d := range all {
		d.LockedUntil = s.b.shifted(d.LockedUntil)
	}
	return all, err
}

func (s *clockBehindSession) LockedUntil() time.Time { return s.b.shifted(s.Session.LockedUntil()) }

// A pool whose messages have always lost their locks on arrival says so, and all but stops
// fetching: an hour of it costs a backlog next to nothing, and then it is handled.
func TestLocksThatEndOnArrival(t *testing.T) {
	for _, sessions := range []bool{false, true} {
		inBubble(t, func(x *fixture, _ *queue.Options) { x.Broker = fixturetest.NewBroker(10) }, func(x *fixture) {
			const n = 100
			for range n {
				x.Send(&queue.Message{Body: []byte("x")})
			}
			var released atomic.Int32
			b := &clockBehind{countedReleases: countedReleases{x.Broker, &released}}
			b.on.Store(true)
			x.Log.Reset()
			c, err := queue.New(b, &queue.Options{Keys: x.Ring, Logger: slog.New(slog.NewJSONHandler(x.Log, nil)), Crypto: queue.CryptoConfig{Enabled: true, MaxMessageAge: 24 * time.Hour}})
			x.Must(err)
			r, err := c.Receiver(x.Context(), orders, &queue.ReceiverOptions{Wait: time.Second})
			x.Must(err)
			var handled atomic.Int32
			_, stop := x.run(r, worker.HandlerFunc(func(context.Context, *queue.Delivery) error {
				if b.on.Load() {
					return errors.New("handled although its lock is over")
				}
				handled.Add(1)
				return nil
			}), nil, &worker.HandleOptions{Sessions: sessions})
			x.Pass(time.Hour)
			dead := len(x.DeadReasons(orders))
			if dead > n/20 {
				x.Errorf("sessions %t: %d of %d messages are dead letters after an hour, and none was handled: %v", sessions, dead, n, x.DeadReasons(orders))
			}
			b.on.Store(false)
			x.Pass(10 * time.Minute)
			x.Must(stop())
			if got := int(handled.Load()); got != n-dead {
				x.Errorf("sessions %t: %d of %d were handled once the clock was right", sessions, got, n-dead)
			}
			if !strings.Contains(x.Log.String(), `"level":"ERROR"`) || !strings.Contains(x.Log.String(), "compare the clocks") {
				x.Errorf("sessions %t: nothing says why", sessions)
			}
			x.Must(c.Close(x.Context()))
		})
	}
}
