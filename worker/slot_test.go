package worker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/worker"
)

// slowSettles is a broker whose settlements wait until they are let through.
type slowSettles struct {
	driver.Broker
	through chan struct{} // closed to let all through

	mu      sync.Mutex
	waiting int
}

func (b *slowSettles) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := b.Broker.Open(ctx, name, o)
	return &slowQueue{q, b}, err
}

// under returns how many settlements wait.
func (b *slowSettles) under() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.waiting
}

// settle waits, and then calls do.
func (b *slowSettles) settle(do func() []error) []error {
	b.mu.Lock()
	b.waiting++
	b.mu.Unlock()
	<-b.through
	b.mu.Lock()
	b.waiting--
	b.mu.Unlock()
	return do()
}

type slowQueue struct {
	driver.Queue
	b *slowSettles
}

func (q *slowQueue) Settle(ctx context.Context, all []driver.Settlement) []error {
	return q.b.settle(func() []error { return q.Queue.Settle(ctx, all) })
}

func (q *slowQueue) AcceptSession(ctx context.Context, id string, wait time.Duration) (driver.Session, error) {
	s, err := q.Queue.AcceptSession(ctx, id, wait)
	return &slowSession{s, q.b}, err
}

type slowSession struct {
	driver.Session
	b *slowSettles
}

func (s *slowSession) Settle(ctx context.Context, all []driver.Settlement) []error {
	return s.b.settle(func() []error { return s.Session.Settle(ctx, all) })
}

// While messages are being completed others are handled: as many as there are slots, and
// no more until one is completed. A message that failed keeps its slot until it is given
// back, and in a session each waits for the completion of the one before it.
func TestPoolHandlesWhileItCompletes(t *testing.T) {
	const messages = 6
	failure := errors.New("no")
	for _, c := range []struct {
		name      string
		slots     int
		fails     error
		sessions  bool
		completed int // handled while no settlement is let through
	}{
		{"one slot", 1, nil, false, 2},
		{"two slots", 2, nil, false, 4},
		{"failures", 2, failure, false, 2},
		{"a session", 2, nil, true, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, nil, func(x *fixture) {
				b := &slowSettles{Broker: x.Broker.Connect(), through: make(chan struct{})}
				client, err := queue.New(b, &queue.Options{Logger: quiet()})
				x.Must(err)
				defer func() { x.Must(client.Close(context.Background())) }()
				s, err := client.Sender(x.Context(), orders, nil)
				x.Must(err)
				r, err := client.Receiver(x.Context(), orders, nil)
				x.Must(err)
				for i := range messages {
					m := &queue.Message{ID: fmt.Sprint(i), Body: []byte("a")}
					if c.sessions {
						m.SessionID = "s"
					}
					_, err := s.Send(x.Context(), m)
					x.Must(err)
				}
				var mu sync.Mutex
				var handled []string
				h := worker.HandlerFunc(func(_ context.Context, d *queue.Delivery) error {
					mu.Lock()
					defer mu.Unlock()
					handled = append(handled, d.ID)
					if c.fails != nil && d.Count == 1 {
						return c.fails
					}
					return nil
				})
				ended := make(chan error, 1)
				_, stop := x.run(r, h, &worker.Options{Concurrency: c.slots}, &worker.HandleOptions{Sessions: c.sessions})
				synctest.Wait()
				if n := b.under(); len(handled) != c.completed || n != c.completed {
					x.Errorf("%d messages are handled and %d settled, want %d", len(handled), n, c.completed)
				}
				go func() { ended <- stop() }()
				synctest.Wait()
				select {
				case err := <-ended:
					x.Fatalf("Run returned (%v) while messages are being settled", err)
				default:
				}
				close(b.through)
				x.Must(<-ended)
				if c.fails == nil && len(x.Stored(orders)) != messages-c.completed {
					x.Errorf("%d messages are left of %d, %d were handled", len(x.Stored(orders)), messages, c.completed)
				}
				if c.sessions && !slices.IsSorted(handled) {
					x.Errorf("handled in the order %v", handled)
				}
			})
		})
	}
}
