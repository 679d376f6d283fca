package worker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
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

// What a Processor holds to when locks, brokers and other queues do not behave.

// through returns a receiver over a proxy, and the proxy.
func (x *fixture) through(store replay.Store) (*queue.Receiver, *queuetest.Proxy) {
	x.Helper()
	p := queuetest.Wrap(x.Broker, 1)
	c, err := queue.New(p, &queue.Options{
		Keys: x.Ring, ReplayStore: store, Logger: quiet(),
		Crypto: queue.CryptoConfig{Enabled: true, TrackReplays: store != nil},
	})
	x.Must(err)
	r, err := c.Receiver(x.Context(), orders, &queue.ReceiverOptions{Wait: time.Second})
	x.Must(err)
	return r, p
}

// A session's lock is renewed while one of its messages is handled, with and
// without a replay store: alone it would run out, and another receiver would have
// the session.
func TestPoolRenewsSessions(t *testing.T) {
	for _, tracked := range []bool{true, false} {
		t.Run(fmt.Sprintf("replay store %t", tracked), func(t *testing.T) {
			inBubble(t, nil, func(x *fixture) {
				x.Send(&queue.Message{ID: "m", SessionID: "s", Body: []byte("a")})
				var store replay.Store
				if tracked {
					store = x.Store
				}
				r, _ := x.through(store)
				var runs atomic.Int32
				h := worker.HandlerFunc(func(ctx context.Context, d *queue.Delivery) error {
					runs.Add(1)
					select {
					case <-time.After(300 * time.Second): // ten lock durations
						return nil
					case <-ctx.Done():
						x.Errorf("the handler's context ended: %v", context.Cause(ctx))
						return ctx.Err()
					}
				})
				_, stop := x.run(r, h, nil, &worker.HandleOptions{Sessions: true})
				x.Pass(310 * time.Second)
				x.Must(stop())
				if n := runs.Load(); n != 1 || len(x.Stored(orders)) != 0 {
					x.Errorf("%d runs, %d left; want 1, 0", n, len(x.Stored(orders)))
				}
			})
		})
	}
}

// A renewal that the broker refuses for good ends the handler's context at once,
// and not when the lock would have run out.
func TestPoolRefusedRenewal(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{ID: "m", Body: []byte("a")})
		r, p := x.through(nil)
		p.Inject(queuetest.Fault{On: queuetest.Renew, Err: &driver.Error{Kind: driver.LockLost}, Times: 1})
		var ended time.Duration
		h := worker.HandlerFunc(func(ctx context.Context, d *queue.Delivery) error {
			if d.Count > 1 {
				return nil
			}
			begin := time.Now()
			<-ctx.Done()
			ended = time.Since(begin)
			if !errors.Is(context.Cause(ctx), queue.ErrLockLost) {
				x.Errorf("cause %v, want ErrLockLost", context.Cause(ctx))
			}
			return ctx.Err()
		})
		_, stop := x.run(r, h, nil, nil)
		x.Pass(2 * time.Minute)
		x.Must(stop())
		if ended < 14*time.Second || ended > 16*time.Second {
			x.Errorf("the handler's context ended after %s, want 15 s: at the renewal", ended)
		}
	})
}

// slowStore takes its time for the first claim.
type slowStore struct {
	replay.Store
	once sync.Once
	wait time.Duration
}

func (s *slowStore) Begin(ctx context.Context, group string, r []replay.Request) ([]replay.Claim, error) {
	s.once.Do(func() { <-time.After(s.wait) })
	return s.Store.Begin(ctx, group, r)
}

// What lost its lock before its turn came is never handed to a handler.
func TestPoolDropsExpired(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{ID: "m", Body: []byte("a")})
		r, _ := x.through(&slowStore{Store: x.Store, wait: 31 * time.Second})
		var counts []int
		h := worker.HandlerFunc(func(_ context.Context, d *queue.Delivery) error {
			counts = append(counts, d.Count)
			return nil
		})
		_, stop := x.run(r, h, &worker.Options{Concurrency: 1}, nil)
		x.Pass(3 * time.Minute)
		x.Must(stop())
		if !slices.Equal(counts, []int{2}) {
			x.Errorf("handled at deliveries %v, want the second alone", counts)
		}
	})
}

// A message of a session that was handled and could not be settled is not
// overtaken by the next: the session is given up.
func TestPoolUnsettledIsNotOvertaken(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		for i := range 3 {
			x.Send(&queue.Message{ID: fmt.Sprint("m", i), SessionID: "s", Body: []byte("a")})
		}
		r, p := x.through(nil)
		p.Inject(queuetest.Fault{On: queuetest.Settle, Err: driver.Errorf(driver.Other, "injected"), Times: 1})
		var got []string
		h := worker.HandlerFunc(func(_ context.Context, d *queue.Delivery) error {
			got = append(got, d.ID)
			return nil
		})
		_, stop := x.run(r, h, nil, &worker.HandleOptions{Sessions: true})
		x.Pass(3 * time.Minute)
		x.Must(stop())
		if !slices.Equal(got, []string{"m0", "m0", "m1", "m2"}) {
			x.Errorf("handled %v, want m0 twice, then the others", got)
		}
	})
}

// While the handlers' downstream is known to fail nothing is fetched, so that no
// delivery is spent; then one message at a time tries it.
func TestPoolWaitsForDownstream(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		s := x.Sender(orders)
		for range 20 {
			_, err := s.Send(x.Context(), &queue.Message{Body: []byte("a")})
			x.Must(err)
		}
		down := true
		var mu sync.Mutex
		var calls int
		most := 0
		h := worker.HandlerFunc(func(_ context.Context, d *queue.Delivery) error {
			mu.Lock()
			defer mu.Unlock()
			calls++
			most = max(most, d.Count)
			if down {
				return errors.New("the service is away")
			}
			return nil
		})
		b, err := backoff.NewBreaker(nil)
		x.Must(err)
		_, stop := x.run(x.Receiver(orders, &queue.ReceiverOptions{Wait: time.Second, MaxDeliveries: 100}), h, &worker.Options{Concurrency: 4}, &worker.HandleOptions{Downstream: b, Retry: backoff.Fixed(0)})
		x.Pass(4 * time.Minute)
		mu.Lock()
		// Five failures open it, some were under way, and one tries every 30 s.
		if calls > 5+4+9 {
			x.Errorf("%d calls in four minutes of outage", calls)
		}
		down = false
		mu.Unlock()
		peeked, _, err := x.Receiver(orders, nil).Peek(x.Context(), "", 100)
		x.Must(err)
		spent := 0
		for _, p := range peeked {
			spent += p.Count
		}
		if spent > 5+2*4+9 {
			x.Errorf("%d deliveries of %d messages were spent on the outage", spent, len(peeked))
		}
		x.Pass(4 * time.Minute)
		x.Must(stop())
		if n := len(x.Stored(orders)) + len(x.DeadReasons(orders)); n != 0 {
			x.Errorf("%d messages are left or dead, want none; deliveries went up to %d", n, most)
		}
	})
}

// A broker that asks to wait is left alone for that long.
func TestPoolHeedsRetryAfter(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		p := &fixturetest.FaultyBroker{Broker: x.Broker}
		counted := &countedReceives{Broker: p}
		c, err := queue.New(counted, &queue.Options{Logger: quiet()})
		x.Must(err)
		r, err := c.Receiver(x.Context(), orders, &queue.ReceiverOptions{Wait: time.Second})
		x.Must(err)
		p.FailReceive(&driver.Error{Kind: driver.Throttled, RetryAfter: 5 * time.Minute})
		h := worker.HandlerFunc(func(context.Context, *queue.Delivery) error { return nil })
		_, stop := x.run(r, h, nil, nil)
		x.Pass(14 * time.Minute)
		x.Must(stop())
		if n := counted.n.Load(); n != 3 {
			x.Errorf("%d calls in 14 minutes, want 3: one in 5 minutes", n)
		}
	})
}

// countedReceives counts the calls of Receive.
type countedReceives struct {
	driver.Broker
	n atomic.Int32
}

func (p *countedReceives) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := p.Broker.Open(ctx, name, o)
	return &countedReceiveQueue{q, p}, err
}

type countedReceiveQueue struct {
	driver.Queue
	p *countedReceives
}

func (q *countedReceiveQueue) Receive(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
	q.p.n.Add(1)
	return q.Queue.Receive(ctx, max, wait)
}

// A queue whose handlers take for ever does not keep another from its one slot.
func TestPoolStarvesNoQueue(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		p, err := worker.New(&worker.Options{Concurrency: 4, DrainTimeout: time.Second})
		x.Must(err)
		s := x.Sender("busy")
		for range 20 {
			_, err := s.Send(x.Context(), &queue.Message{Body: []byte("a")})
			x.Must(err)
		}
		hog := worker.HandlerFunc(func(ctx context.Context, _ *queue.Delivery) error {
			<-ctx.Done()
			return ctx.Err()
		})
		x.Must(p.Handle(x.Receiver("busy", nil), hog, nil))
		var handled time.Duration
		begin := time.Now()
		quick := worker.HandlerFunc(func(context.Context, *queue.Delivery) error {
			handled = time.Since(begin)
			return nil
		})
		x.Must(p.Handle(x.Receiver(orders, nil), quick, nil))
		ctx, cancel := context.WithCancel(x.Context())
		done := make(chan error)
		go func() { done <- p.Run(ctx) }()
		x.Pass(10 * time.Second)
		x.Send(&queue.Message{Body: []byte("a")})
		x.Pass(10 * time.Second)
		cancel()
		x.Must(<-done)
		if handled < 10*time.Second || handled > 11*time.Second {
			x.Errorf("the message of the other queue was handled after %s, want 10 s", handled)
		}
	})
}

// A session that is worked off is given back at once, not when its lock runs out.
func TestPoolGivesSessionsBack(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		for i := range 5 {
			x.Send(&queue.Message{SessionID: fmt.Sprint("s", i), Body: []byte("a")})
		}
		p := &fixturetest.SessionCounter{}
		r := x.CountSessions(p, &queue.ReceiverOptions{Wait: time.Second})
		h := worker.HandlerFunc(func(context.Context, *queue.Delivery) error { return nil })
		_, stop := x.run(r, h, nil, &worker.HandleOptions{Sessions: true})
		x.Pass(5 * time.Second)
		if p.Accepted.Load() != 5 || p.Held.Load() != 0 {
			x.Errorf("%d sessions accepted, %d still held; want 5, 0", p.Accepted.Load(), p.Held.Load())
		}
		x.Must(stop())
	})
}

// A broker that does not answer is left alone while the breaker is open.
func TestPoolBreaker(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		p := &fixturetest.FaultyBroker{Broker: x.Broker}
		p.FailReceive(driver.Errorf(driver.Unavailable, "connection refused"))
		counted := &countedReceives{Broker: p}
		c, err := queue.New(counted, &queue.Options{Logger: quiet()})
		x.Must(err)
		r, err := c.Receiver(x.Context(), orders, &queue.ReceiverOptions{Wait: time.Second})
		x.Must(err)
		var mu sync.Mutex
		var states []backoff.State
		h := worker.HandlerFunc(func(context.Context, *queue.Delivery) error { return nil })
		_, stop := x.run(r, h, &worker.Options{Breaker: backoff.BreakerOptions{Open: 10 * time.Minute, OnChange: func(s backoff.State) {
			mu.Lock()
			defer mu.Unlock()
			states = append(states, s)
		}}}, nil)
		x.Pass(9 * time.Minute)
		x.Must(stop())
		if n := counted.n.Load(); n != 5 {
			x.Errorf("%d calls in nine minutes, want 5: then the breaker is open", n)
		}
		if !slices.Equal(states, []backoff.State{backoff.Open}) {
			x.Errorf("states %v", states)
		}
	})
}

// hookedStore calls a function before the first claim.
type hookedStore struct {
	replay.Store
	once sync.Once
	hook func()
}

func (s *hookedStore) Begin(ctx context.Context, group string, r []replay.Request) ([]replay.Claim, error) {
	s.once.Do(s.hook)
	return s.Store.Begin(ctx, group, r)
}

// A message that was fetched when its handlers' downstream was found to be away
// is given back untried, also at its last delivery.
func TestPoolUntriedIsNotDeadLettered(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{Body: []byte("a")})
		b, err := backoff.NewBreaker(nil)
		x.Must(err)
		r, _ := x.through(&hookedStore{Store: x.Store, hook: func() {
			for range 5 {
				fail(b)
			}
		}})
		var handled []int
		h := worker.HandlerFunc(func(_ context.Context, d *queue.Delivery) error {
			handled = append(handled, d.Count)
			return nil
		})
		_, stop := x.run(r, h, nil, &worker.HandleOptions{Downstream: b, MaxDeliveries: 1})
		x.Pass(time.Minute)
		x.Must(stop())
		if got := x.DeadReasons(orders); len(got) != 0 || !slices.Equal(handled, []int{1}) {
			x.Errorf("dead letters %v, handled at deliveries %v; want none, the first: being given back untried does not count", got, handled)
		}
	})
}

// With sessions, the message that tests whether a downstream works again is the first
// of one session.
func TestPoolTestsDownstreamWithOneSession(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		for i := range 8 {
			x.Send(&queue.Message{SessionID: fmt.Sprint("s", i), Body: []byte("a")})
		}
		b, err := backoff.NewBreaker(nil)
		x.Must(err)
		for range 5 {
			fail(b)
		}
		r, _ := x.through(nil)
		var mu sync.Mutex
		var at []time.Duration
		begin := time.Now()
		h := worker.HandlerFunc(func(_ context.Context, d *queue.Delivery) error {
			x.Pass(time.Second)
			mu.Lock()
			defer mu.Unlock()
			if at = append(at, time.Since(begin).Round(time.Second)); d.Count > 1 {
				x.Errorf("delivery %d: one was given back untried", d.Count)
			}
			return nil
		})
		_, stop := x.run(r, h, nil, &worker.HandleOptions{Sessions: true, Downstream: b})
		x.Pass(2 * time.Minute)
		x.Must(stop())
		if len(at) != 8 || at[0] < 30*time.Second || at[1] == at[0] || at[2] == at[1] {
			x.Errorf("handled at %v, want the first three one by one", at)
		}
	})
}

// fail makes one call through b, which fails.
func fail(b *backoff.Breaker) {
	if p, _, ok := b.Allow(); ok {
		p.Failed()
	}
}
