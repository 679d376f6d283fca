package worker_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/fixturetest"
	"github.com/queue-runtime/queue/queuetest"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/worker"
)

// TestLostAnswerToSettling: a settlement that took effect and whose answer was lost is
// what it was meant to be, and no error.
func TestLostAnswerToSettling(t *testing.T) {
	w := &watcher{}
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{ID: "m", Body: []byte("a")})
		p := queuetest.Wrap(x.Broker, 1)
		c, err := queue.New(p, &queue.Options{Keys: x.Ring, Logger: quiet(), Observer: w})
		x.Must(err)
		r, err := c.Receiver(x.Context(), orders, &queue.ReceiverOptions{Wait: time.Second})
		x.Must(err)
		p.Inject(queuetest.Fault{On: queuetest.Settle, LostAnswer: queuetest.Unavailable(), Times: 1})
		var told []error
		h := worker.HandlerFunc(func(context.Context, *queue.Delivery) error { return nil })
		_, stop := x.run(r, h, &worker.Options{OnError: func(_ context.Context, _ *queue.Delivery, err error) { told = append(told, err) }}, nil)
		x.Pass(time.Minute)
		x.Must(stop())
		if len(w.handled) != 1 || w.handled[0].Disposition != driver.Completed || len(told) != 0 {
			x.Errorf("handled %+v, told %v; want completed once and no error", w.handled, told)
		}
	})
}

// TestDownstreamCounts: what opens a downstream's breaker, and what does not.
func TestDownstreamCounts(t *testing.T) {
	failed := errors.New("failed")
	for _, c := range []struct {
		name   string
		handle func(ctx context.Context) error
		want   backoff.State
	}{
		{"a failure", func(context.Context) error { return failed }, backoff.Open},
		{"RetryAfter", func(context.Context) error { return worker.RetryAfter(failed, time.Hour) }, backoff.Open},
		{"Later", func(context.Context) error { return worker.Later(failed, time.Hour) }, backoff.Open},
		{"a panic", func(context.Context) error { panic("in the handler") }, backoff.Open},
		{"the end of its goroutine", func(context.Context) error { runtime.Goexit(); return nil }, backoff.Open},
		{"nil", func(context.Context) error { return nil }, backoff.Closed},
		{"Permanent", func(context.Context) error { return worker.Permanent(failed, "bad") }, backoff.Closed},
		{"the end of its time", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, backoff.Closed},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, nil, func(x *fixture) {
				x.Send(&queue.Message{ID: "m", Body: []byte("a")})
				b, err := backoff.NewBreaker(&backoff.BreakerOptions{Failures: 1, Open: time.Hour})
				x.Must(err)
				h := worker.HandlerFunc(func(ctx context.Context, _ *queue.Delivery) error { return c.handle(ctx) })
				_, stop := x.run(x.Receiver(orders, nil), h, nil, &worker.HandleOptions{Downstream: b, MaxProcessing: time.Second})
				x.Pass(10 * time.Second)
				if s := b.State(); s != c.want {
					x.Errorf("the breaker is %s, want %s", s, c.want)
				}
				x.Must(stop())
			})
		})
	}
}

// TestProbeIsFetchedAlone: while a half-open downstream is tested by one message, no
// other is fetched, which could only be given back.
func TestProbeIsFetchedAlone(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		for range 8 {
			x.Send(&queue.Message{Body: []byte("a")})
		}
		kinds := &settleKinds{Broker: x.Broker}
		c, err := queue.New(kinds, &queue.Options{Keys: x.Ring, Logger: quiet()})
		x.Must(err)
		r, err := c.Receiver(x.Context(), orders, &queue.ReceiverOptions{Wait: time.Second})
		x.Must(err)
		b, err := backoff.NewBreaker(nil)
		x.Must(err)
		for range 5 {
			fail(b)
		}
		h := worker.HandlerFunc(func(context.Context, *queue.Delivery) error {
			x.Pass(time.Second)
			return nil
		})
		_, stop := x.run(r, h, nil, &worker.HandleOptions{Downstream: b})
		x.Pass(2 * time.Minute)
		x.Must(stop())
		if got := kinds.all(); len(got) != 8 || slices.Contains(got, driver.Release) {
			x.Errorf("settled by %v, want eight completed and none released", got)
		}
	})
}

// brokenStore is a replay store that does not answer while broken, and counts renewals.
type brokenStore struct {
	replay.Store
	broken atomic.Bool
	renews atomic.Int32
}

func (s *brokenStore) Begin(ctx context.Context, group string, r []replay.Request) ([]replay.Claim, error) {
	if s.broken.Load() {
		return nil, errors.New("connection refused")
	}
	return s.Store.Begin(ctx, group, r)
}

func (s *brokenStore) Probe(ctx context.Context, group string) error {
	if s.broken.Load() {
		return errors.New("connection refused")
	}
	return s.Store.Probe(ctx, group)
}

func (s *brokenStore) Renew(ctx context.Context, group string, l []replay.Lease) ([]replay.Renewed, error) {
	s.renews.Add(1)
	return s.Store.Renew(ctx, group, l)
}

// TestStoreOutageIsNotTheBrokers: a replay store that is away does not open the breaker
// of the calls to the broker.
func TestStoreOutageIsNotTheBrokers(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{ID: "m", Body: []byte("a")})
		s := &brokenStore{Store: x.Store}
		s.broken.Store(true)
		r, _ := x.through(s)
		var changes atomic.Int32
		var handled atomic.Int32
		h := worker.HandlerFunc(func(context.Context, *queue.Delivery) error { handled.Add(1); return nil })
		_, stop := x.run(r, h, &worker.Options{Breaker: backoff.BreakerOptions{
			Failures: 1, OnChange: func(backoff.State) { changes.Add(1) },
		}}, nil)
		x.Pass(2 * time.Minute)
		s.broken.Store(false)
		x.Pass(2 * time.Minute)
		x.Must(stop())
		if changes.Load() != 0 || handled.Load() != 1 {
			x.Errorf("the breaker changed %d times, %d handled; want 0, 1", changes.Load(), handled.Load())
		}
	})
}

// TestClaimsInSessionsAreRenewed: a message of a session has a claim of its own, beside
// the session's lock.
func TestClaimsInSessionsAreRenewed(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{ID: "m", SessionID: "s", Body: []byte("a")})
		s := &brokenStore{Store: x.Store}
		r, _ := x.through(s)
		h := worker.HandlerFunc(func(context.Context, *queue.Delivery) error {
			x.Pass(100 * time.Second)
			return nil
		})
		_, stop := x.run(r, h, nil, &worker.HandleOptions{Sessions: true})
		x.Pass(2 * time.Minute)
		x.Must(stop())
		if n := s.renews.Load(); n < 5 {
			x.Errorf("%d renewals of the claim in 100 s, want one every 15 s", n)
		}
	})
}

// TestSessionHoldsDelay: on a broker without delays a session is held for the delay of
// its message; on any other it is given up, and the broker holds the message.
func TestSessionHoldsDelay(t *testing.T) {
	for support, sessions := range map[driver.Support]int32{driver.None: 1, driver.Native: 2} {
		t.Run(support.String(), func(t *testing.T) {
			inBubble(t, nil, func(x *fixture) {
				x.Send(&queue.Message{ID: "m", SessionID: "s", Body: []byte("a")})
				p := &fixturetest.SessionCounter{Caps: func(c *driver.Capabilities) { c.AbandonDelay = support }}
				r := x.CountSessions(p, &queue.ReceiverOptions{Wait: time.Second})
				begin := time.Now()
				var at []time.Duration
				h := worker.HandlerFunc(func(context.Context, *queue.Delivery) error {
					if at = append(at, time.Since(begin).Round(time.Second)); len(at) == 1 {
						return worker.RetryAfter(nil, 20*time.Second)
					}
					return nil
				})
				_, stop := x.run(r, h, nil, &worker.HandleOptions{Sessions: true})
				x.Pass(time.Minute)
				x.Must(stop())
				if !slices.Equal(at, []time.Duration{0, 20 * time.Second}) || p.Accepted.Load() != sessions {
					x.Errorf("handled at %v in %d sessions, want at 0 and 20 s in %d", at, p.Accepted.Load(), sessions)
				}
			})
		})
	}
}

// After an outage of the broker receiving is back within seconds, however long it was and
// whatever it looked like: a network that is away, throttling, credentials that ran out, a
// queue that is disabled. So are sessions.
func TestReceivingIsBackAfterAnOutage(t *testing.T) {
	for what, failure := range map[string]error{
		"away":      queuetest.Unavailable(),
		"throttled": driver.Errorf(driver.Throttled, "too many requests"),
		"refused":   driver.Errorf(driver.Permission, "the token is expired"),
		"disabled":  driver.Errorf(driver.Other, "the queue is disabled for receiving"),
	} {
		for _, sessions := range []bool{false, true} {
			for _, outage := range []time.Duration{6 * time.Second, 20 * time.Second, time.Hour} {
				inBubble(t, nil, func(x *fixture) {
					r, p := x.through(x.Store)
					p.Inject(queuetest.Fault{Err: failure})
					handled := make(chan time.Time, 1)
					_, stop := x.run(r, worker.HandlerFunc(func(context.Context, *queue.Delivery) error {
						handled <- time.Now()
						return nil
					}), nil, &worker.HandleOptions{Sessions: sessions})
					x.Pass(outage)
					x.Send(&queue.Message{SessionID: "s", Body: []byte("x")})
					p.Heal()
					over := time.Now()
					if took := (<-handled).Sub(over); took > 10*time.Second {
						x.Errorf("%s, sessions %t, for %s: back after %s", what, sessions, outage, took)
					}
					x.Must(stop())
				})
			}
		}
	}
}
