package worker_test

import (
	"context"
	"fmt"
	"sync"
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

// Messages without a session are handled beside those of sessions, each at once and on its
// own, and do not hold one another up.
func TestSessionlessMessagesAreHandled(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		const each = 40
		for i := range each {
			x.Send(&queue.Message{ID: fmt.Sprint("alone-", i), Body: []byte("x")})
			x.Send(&queue.Message{ID: fmt.Sprint("s-", i), SessionID: "s", Body: []byte("x")})
		}
		var mu sync.Mutex
		var inSession []string
		failed, alone := map[string]bool{}, map[string]int{}
		h := worker.HandlerFunc(func(_ context.Context, d *queue.Delivery) error {
			time.Sleep(time.Second)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case d.SessionID != "":
				inSession = append(inSession, d.ID)
			case !failed[d.ID] && len(failed) < each/2:
				failed[d.ID] = true
				return worker.RetryAfter(nil, 10*time.Second)
			default:
				alone[d.ID]++
			}
			return nil
		})
		_, stop := x.run(x.Receiver(orders, nil), h, &worker.Options{Concurrency: 8}, &worker.HandleOptions{Sessions: true})
		x.Pass(50 * time.Second) // the session alone takes 40 s; the others, in 7 slots, 20 s
		x.Must(stop())
		if n := len(x.Stored(orders)); n > 0 || len(alone) != each || len(inSession) != each {
			x.Errorf("%d messages are left; %d without a session and %d of one were handled, want %d each", n, len(alone), len(inSession), each)
		}
		for i, id := range inSession {
			if want := fmt.Sprint("s-", i); id != want {
				x.Fatalf("the session was handled as %v", inSession)
			}
		}
		for id, n := range alone {
			if n != 1 {
				x.Errorf("%s was handled %d times", id, n)
			}
		}
		if dead := x.DeadReasons(orders); len(dead) > 0 {
			x.Errorf("dead letters %v", dead)
		}
	})
}
