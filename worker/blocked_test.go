package worker_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/worker"
)

// countingSessions counts what is open of a driver's sessions.
type countingSessions struct {
	driver.Broker
	caps     func(*driver.Capabilities)
	accepted atomic.Int32
	open     atomic.Int32
}

func (p *countingSessions) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := p.Broker.Open(ctx, name, o)
	return &countedQueue{q, p}, err
}

type countedQueue struct {
	driver.Queue
	p *countingSessions
}

func (q *countedQueue) Capabilities() driver.Capabilities {
	c := q.Queue.Capabilities()
	if q.p.caps != nil {
		q.p.caps(&c)
	}
	return c
}

func (q *countedQueue) AcceptSession(ctx context.Context, id string, wait time.Duration) (driver.Session, error) {
	s, err := q.Queue.AcceptSession(ctx, id, wait)
	if err != nil {
		return nil, err
	}
	q.p.accepted.Add(1)
	q.p.open.Add(1)
	return &countedSession{Session: s, p: q.p}, nil
}

type countedSession struct {
	driver.Session
	p      *countingSessions
	closed atomic.Bool
}

func (s *countedSession) Close(ctx context.Context) error {
	if !s.closed.Swap(true) {
		s.p.open.Add(-1)
	}
	return s.Session.Close(ctx)
}

// counted returns a receiver over a client whose sessions are counted.
func (x *fixture) counted(p *countingSessions, o *queue.ReceiverOptions) *queue.Receiver {
	x.Helper()
	p.Broker = x.Broker
	c, err := queue.New(p, &queue.Options{
		Keys: x.Ring, ReplayStore: x.Store, Logger: quiet(),
		Crypto: queue.CryptoConfig{Enabled: true, TrackReplays: true, MaxMessageAge: 2 * time.Hour},
	})
	x.Must(err)
	r, err := c.Receiver(x.Context(), orders, o)
	x.Must(err)
	return r
}

// On a broker without a delay on abandon a session whose first message must wait
// is not handed round until the message's deliveries are used up: its lock is
// the delay.
func TestBlockedSessionWaitsOutItsLock(t *testing.T) {
	for _, support := range []driver.Support{driver.None, driver.Native} {
		t.Run(support.String(), func(t *testing.T) {
			inBubble(t, nil, func(x *fixture) {
				x.Must(x.Ring.Add(newKey(x.T, "k2", 9)))
				x.Must(x.Ring.SetCurrent("k2"))
				x.Send(&queue.Message{ID: "m", SessionID: "s", Body: []byte("a")})
				x.Must(x.Ring.SetCurrent("k1"))
				p := &countingSessions{caps: func(c *driver.Capabilities) { c.AbandonDelay = support }}
				bot := newRing(x.T, "k1")
				r := x.counted(p, &queue.ReceiverOptions{Wait: time.Second, Keys: bot, MaxDeliveries: 10})
				_, stop := x.run(r, worker.HandlerFunc(func(context.Context, *queue.Delivery) error { return nil }), nil, &worker.HandleOptions{Sessions: true})
				x.Pass(2 * time.Minute)
				if got := x.DeadReasons(orders); len(got) != 0 {
					x.Errorf("dead letters %v within two minutes: a rotation that is on its way must not lose messages", got)
				}
				if n := p.accepted.Load(); n > 8 {
					x.Errorf("the session was accepted %d times in two minutes", n)
				}
				x.Must(bot.Add(newKey(x.T, "k2", 9)))
				x.Pass(4 * time.Minute)
				if n := len(x.Stored(orders)) + len(x.DeadReasons(orders)); n != 0 {
					x.Errorf("%d messages are left, want none: the key is there", n)
				}
				x.Must(stop())
				if n := p.open.Load(); n != 0 {
					x.Errorf("%d sessions are still open", n)
				}
			})
		})
	}
}
