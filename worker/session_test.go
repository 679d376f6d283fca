package worker_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/worker"
)

// deafSessions is a provider whose sessions can be accepted and not received from.
type deafSessions struct {
	driver.Broker
	err      error
	accepted atomic.Int32
	enough   func() // called at the thousandth
}

func (p *deafSessions) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := p.Broker.Open(ctx, name, o)
	return &deafSessionQueue{q, p}, err
}

type deafSessionQueue struct {
	driver.Queue
	p *deafSessions
}

func (q *deafSessionQueue) AcceptSession(ctx context.Context, id string, wait time.Duration) (driver.Session, error) {
	s, err := q.Queue.AcceptSession(ctx, id, wait)
	if q.p.accepted.Add(1) == 1000 {
		q.p.enough()
	}
	return &deafSession{s, q.p.err}, err
}

type deafSession struct {
	driver.Session
	err error
}

func (s *deafSession) Receive(context.Context, int, time.Duration) ([]*driver.Delivery, error) {
	return nil, s.err
}

// A broker that gives sessions away and fails at receiving from them, or takes them
// back at once, is not asked for the next one again and again.
func TestPoolWaitsAfterSessionThatFails(t *testing.T) {
	for name, kind := range map[string]driver.Kind{"unavailable": driver.Unavailable, "lost": driver.SessionLost} {
		t.Run(name, func(t *testing.T) {
			p := &deafSessions{err: driver.Errorf(kind, "connection reset")}
			inBubble(t, func(x *fixture, _ *queue.Options) { p.Broker = x.Broker }, func(x *fixture) {
				x.Send(&queue.Message{ID: "m", SessionID: "s", Body: []byte("a")})
				client, err := queue.New(p, &queue.Options{Keys: x.Ring, Logger: quiet()})
				x.Must(err)
				r, err := client.Receiver(x.Context(), orders, nil)
				x.Must(err)
				processor, err := worker.New(&worker.Options{Concurrency: 1})
				x.Must(err)
				handler := worker.HandlerFunc(func(context.Context, *queue.Delivery) error { return nil })
				x.Must(processor.Handle(r, handler, &worker.HandleOptions{Sessions: true}))
				ctx, stop := context.WithTimeout(x.Context(), time.Minute)
				defer stop()
				p.enough = stop
				x.Must(processor.Run(ctx))
				if n := p.accepted.Load(); n < 2 || n > 70 {
					x.Errorf("a session was accepted %d times in a minute, want about one a second", n)
				}
			})
		})
	}
}

// Messages without a session, which no session brings, are warned of.
func TestSessionlessMessagesAreWarnedOf(t *testing.T) {
	for _, session := range []string{"", "s"} {
		inBubble(t, nil, func(x *fixture) {
			x.Send(&queue.Message{Body: []byte("x"), SessionID: session})
			h := worker.HandlerFunc(func(context.Context, *queue.Delivery) error { return nil })
			_, stop := x.run(x.Receiver(orders, nil), h, nil, &worker.HandleOptions{Sessions: true})
			x.Pass(9 * time.Minute)
			x.Must(stop())
			want := 0
			if session == "" {
				want = 2
			}
			if n := strings.Count(x.Log.String(), "Messages without a session wait"); n != want {
				x.Errorf("session %q: %d warnings in nine minutes, want %d", session, n, want)
			}
		})
	}
}
