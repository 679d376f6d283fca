package worker_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/queuetest"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/worker"
)

// fullStore is a replay store that is full until its time.
type fullStore struct {
	replay.Store
	until time.Time
}

func (s *fullStore) Begin(ctx context.Context, group string, r []replay.Request) ([]replay.Claim, error) {
	if !time.Now().Before(s.until) {
		return s.Store.Begin(ctx, group, r)
	}
	claims := make([]replay.Claim, len(r))
	for i := range claims {
		claims[i].Err = replay.ErrFull
	}
	return claims, nil
}

// What went wrong without anything being held against a message costs none a delivery, also
// if it came in a session, or in one of its own because it has none.
func TestNothingIsHeldAgainstMessagesOfSessions(t *testing.T) {
	const outage = 3 * time.Hour
	down := func(begin time.Time) error {
		if time.Since(begin) < outage {
			return errors.New("connection refused")
		}
		return nil
	}
	for name, c := range map[string]struct {
		receiver func(*testing.T, *queuetest.Fixture) *queue.Receiver // nil means the fixture's
		options  func() *worker.HandleOptions
		handle   func(ctx context.Context, begin time.Time) error
		restarts bool
	}{
		"put off": {handle: func(_ context.Context, begin time.Time) error {
			if time.Since(begin) < outage {
				return worker.Later(nil, 2*time.Minute)
			}
			return nil
		}},
		"drained": {restarts: true, handle: func(ctx context.Context, begin time.Time) error {
			if time.Since(begin) < outage {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}},
		"downstream is away": {options: func() *worker.HandleOptions {
			b, err := backoff.NewBreaker(nil)
			if err != nil {
				t.Fatal(err)
			}
			return &worker.HandleOptions{Downstream: b}
		}, handle: func(_ context.Context, begin time.Time) error { return down(begin) }},
		"replay store is full": {receiver: func(t *testing.T, x *queuetest.Fixture) *queue.Receiver {
			o := x.Client.Options()
			o.ReplayStore = &fullStore{x.ReplayStore, time.Now().Add(outage)}
			return receiverWith(t, x, &o)
		}, handle: func(context.Context, time.Time) error { return nil }},
		"key store throttles": {receiver: func(t *testing.T, x *queuetest.Fixture) *queue.Receiver {
			return overSlowKeys(t, x, false, 20*time.Millisecond, 80)
		}, handle: func(context.Context, time.Time) error { return nil }},
	} {
		for _, session := range []string{"s", ""} {
			t.Run(fmt.Sprintf("%s, session %q", name, session), func(t *testing.T) {
				inField(t, memqueue.QueueOptions{}, func(t *testing.T, x *queuetest.Fixture, s *queue.Sender, r *queue.Receiver) {
					const n = 8
					for i := range n {
						if _, err := s.Send(t.Context(), &queue.Message{ID: fmt.Sprint(i), SessionID: session, Body: []byte("x")}); err != nil {
							t.Fatal(err)
						}
					}
					if c.receiver != nil {
						r = c.receiver(t, x)
						defer func() {
							if err := r.Client().Close(t.Context()); err != nil {
								t.Error(err)
							}
						}()
					}
					o := &worker.HandleOptions{}
					if c.options != nil {
						o = c.options()
					}
					o.Sessions = true
					begin := time.Now()
					var mu sync.Mutex
					var done []string
					h := func(ctx context.Context, d *queue.Delivery) error {
						if err := c.handle(ctx, begin); err != nil {
							return err
						}
						mu.Lock()
						defer mu.Unlock()
						done = append(done, d.ID)
						return nil
					}
					runs := 1
					if c.restarts {
						runs = 40 // deploys, 5 minutes apart
					}
					for range runs {
						runFor(t, 8*time.Hour/time.Duration(runs), r, o, h)
					}
					if dead := x.DeadLettered(t.Context(), orders); len(dead) > 0 {
						t.Errorf("%d dead letters, the first for %s", len(dead), dead[0].DeadLetter.Reason)
					}
					for i, id := range done {
						if session != "" && id != fmt.Sprint(i) {
							t.Fatalf("the session was handled as %v", done)
						}
					}
					if len(done) != n {
						t.Errorf("%d of %d were handled: %v", len(done), n, done)
					}
				})
			})
		}
	}
}

// receiverWith opens the queue by a client of its own.
func receiverWith(t *testing.T, x *queuetest.Fixture, o *queue.Options) *queue.Receiver {
	t.Helper()
	c, err := queue.New(x.Broker, o)
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Receiver(t.Context(), orders, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// What is refused and has no session keeps no slot waiting for what cannot come: neither
// what is not sealed nor what was handled before holds the messages behind it up.
func TestRefusedMessagesWithoutSessionHoldUpNone(t *testing.T) {
	inField(t, memqueue.QueueOptions{}, func(t *testing.T, x *queuetest.Fixture, s *queue.Sender, r *queue.Receiver) {
		handled := make(map[string]time.Time)
		run := func() {
			runFor(t, time.Hour, r, &worker.HandleOptions{Sessions: true, Concurrency: 1}, func(_ context.Context, d *queue.Delivery) error {
				handled[d.ID] = time.Now()
				return nil
			})
		}
		const n = 50
		sendSome(t, s, n)
		run()
		copies := x.Broker.Captured(orders)
		for i := range n {
			copies = append(copies, driver.Message{ID: fmt.Sprint("plain-", i), Body: []byte("not sealed")})
		}
		if err := x.Broker.Store(t.Context(), orders, copies...); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Send(t.Context(), &queue.Message{ID: "last", SessionID: "s", Body: []byte("x")}); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		run()
		if took := handled["last"].Sub(begin); took < 0 || took > 10*time.Second {
			t.Errorf("the message behind %d was handled after %s", len(copies), took)
		}
	})
}
