package worker_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/fixturetest"
	"github.com/queue-runtime/queue/worker"
)

// run starts a processor over receiver r and returns how to end it.
func (x *fixture) run(r *queue.Receiver, h worker.Handler, po *worker.Options, ho *worker.HandleOptions) (p *worker.Pool, stop func() error) {
	x.Helper()
	p, err := worker.New(po)
	x.Must(err)
	x.Must(p.Handle(r, h, ho))
	ctx, cancel := context.WithCancel(x.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	return p, func() error {
		cancel()
		return <-done
	}
}

func TestPoolOutcomes(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		for _, id := range []string{"good", "later", "never", "flaky", "hopeless", "panics"} {
			x.Send(&queue.Message{ID: id, Body: []byte("secret payload")})
		}
		var mu sync.Mutex
		runs := map[string][]time.Duration{}
		var reported []error
		begin := time.Now()
		h := worker.HandlerFunc(func(_ context.Context, d *queue.Delivery) error {
			mu.Lock()
			runs[d.ID] = append(runs[d.ID], time.Since(begin).Round(time.Second))
			n := len(runs[d.ID])
			mu.Unlock()
			switch d.ID {
			case "later":
				if n == 1 {
					return worker.RetryAfter(errors.New("secret payload"), time.Minute)
				}
			case "never":
				return worker.Permanent(worker.Public(errors.New("no such customer")), "bad_order")
			case "flaky":
				if n < 3 {
					return errors.New("secret payload")
				}
			case "hopeless":
				return errors.New("secret payload")
			case "panics":
				if n == 1 {
					panic("secret payload")
				}
			}
			return nil
		})
		_, stop := x.run(x.Receiver(orders, nil), h,
			&worker.Options{OnError: func(_ context.Context, _ *queue.Delivery, err error) {
				mu.Lock()
				defer mu.Unlock()
				reported = append(reported, err)
			}},
			&worker.HandleOptions{Retry: backoff.Fixed(10 * time.Second), MaxDeliveries: 4})
		x.Pass(5 * time.Minute)
		x.Must(stop())

		want := map[string][]time.Duration{
			"good": {0}, "later": {0, time.Minute}, "never": {0},
			"flaky":    {0, 10 * time.Second, 20 * time.Second},
			"hopeless": {0, 10 * time.Second, 20 * time.Second, 30 * time.Second},
			"panics":   {0, 10 * time.Second},
		}
		for id, times := range want {
			if !slices.Equal(runs[id], times) {
				x.Errorf("%s ran at %v, want %v", id, runs[id], times)
			}
		}
		if n := len(x.Stored(orders)); n != 0 {
			x.Errorf("%d messages are left", n)
		}
		dead, why, err := x.Broker.Attacker().DeadLetters(x.Context(), orders)
		x.Must(err)
		got := map[string]driver.DeadLetter{}
		for i, m := range dead {
			got[m.ID] = why[i]
		}
		if len(got) != 2 || got["never"].Reason != "bad_order" || got["hopeless"].Reason != "max_deliveries" {
			x.Errorf("dead letters %v", got)
		}
		if d := got["never"].Description; !strings.Contains(d, "no such customer") {
			x.Errorf("the description %q lacks what was marked safe", d)
		}
		if d := got["hopeless"].Description; !strings.Contains(d, "4 deliveries") || strings.Count(d, "T") < 4 {
			x.Errorf("the description %q lacks the attempts and their times", d)
		}
		// What handlers say may hold payload: it reaches OnError and nothing else.
		if len(reported) != 1+1+2+4+1 {
			x.Errorf("OnError was called %d times, want 9", len(reported))
		}
		for what, text := range map[string]string{"log": x.Log.String(), "dead letters": fmt.Sprint(got)} {
			if strings.Contains(text, "secret payload") {
				x.Errorf("the %s holds a handler's error text", what)
			}
		}
	})
}

func TestPoolRenewsLocks(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{Body: []byte("a")})
		var runs atomic.Int32
		h := worker.HandlerFunc(func(ctx context.Context, d *queue.Delivery) error {
			runs.Add(1)
			select {
			case <-time.After(300 * time.Second): // ten lock durations
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
		_, stop := x.run(x.Receiver(orders, nil), h, nil, nil)
		x.Pass(310 * time.Second)
		x.Must(stop())
		if n := runs.Load(); n != 1 {
			x.Errorf("the handler ran %d times, want once", n)
		}
		if n := len(x.Stored(orders)); n != 0 {
			x.Errorf("%d messages are left", n)
		}
	})
}

// A handler that ignores the end of its context keeps its slot and its message's lock:
// the message does not run a second time beside it. One warning says so.
func TestPoolHangingHandler(t *testing.T) {
	for _, sessions := range []bool{false, true} {
		t.Run(fmt.Sprintf("sessions %t", sessions), func(t *testing.T) {
			inBubble(t, nil, func(x *fixture) {
				x.Send(&queue.Message{ID: "m", SessionID: "s", Body: []byte("a")})
				release := make(chan struct{})
				causes := make(chan error, 4)
				var runs atomic.Int32
				h := worker.HandlerFunc(func(ctx context.Context, _ *queue.Delivery) error {
					runs.Add(1)
					<-ctx.Done()
					causes <- context.Cause(ctx)
					<-release
					return nil
				})
				const warning = "Handler goes on although its context has ended"
				_, stop := x.run(x.Receiver(orders, nil), h,
					&worker.Options{Concurrency: 2, CancelGrace: 5 * time.Second},
					&worker.HandleOptions{MaxProcessing: 2 * time.Minute, Sessions: sessions})
				x.Pass(2*time.Minute + 4*time.Second)
				if err := <-causes; !errors.Is(err, worker.ErrMaxProcessing) {
					x.Errorf("cause %v, want ErrMaxProcessing", err)
				}
				synctest.Wait() // for what is logged at this time
				if strings.Contains(x.Log.String(), warning) {
					x.Error("a warning within the grace")
				}
				x.Pass(20 * time.Minute)
				synctest.Wait()
				if n := runs.Load(); n != 1 {
					x.Errorf("%d runs after 22 minutes, want 1: the lock is kept while the handler runs", n)
				}
				if n := strings.Count(x.Log.String(), warning); n != 1 {
					x.Errorf("%d warnings, want 1", n)
				}
				begin := time.Now()
				err := stop()
				if !errors.Is(err, worker.ErrHandlersRunning) {
					x.Errorf("Run = %v, want ErrHandlersRunning", err)
				}
				if d := time.Since(begin); d != 24*time.Second {
					x.Errorf("the drain took %s, want 24 s", d)
				}
				close(release)
				synctest.Wait()
				if n := len(x.Stored(orders)); n != 0 {
					x.Errorf("%d messages are left, want none: the handler returned nil under its lock", n)
				}
			})
		})
	}
}

// The broker does not answer for longer than a lock: the handler's context ends
// when the lock does, not when the broker is back.
func TestPoolLostLock(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{Body: []byte("a")})
		faults := &stallingBroker{Broker: x.Broker}
		c, err := queue.New(faults, &queue.Options{Keys: x.Ring, ReplayStore: x.Store, Logger: quiet(), Crypto: queue.CryptoConfig{Enabled: true, TrackReplays: true}})
		x.Must(err)
		r, err := c.Receiver(x.Context(), orders, &queue.ReceiverOptions{Wait: time.Second})
		x.Must(err)
		var ended time.Duration
		var cause error
		h := worker.HandlerFunc(func(ctx context.Context, d *queue.Delivery) error {
			if d.Count > 1 {
				return nil
			}
			faults.stall.Store(true)
			begin := time.Now()
			<-ctx.Done()
			ended, cause = time.Since(begin), context.Cause(ctx)
			faults.stall.Store(false)
			return ctx.Err()
		})
		_, stop := x.run(r, h, nil, nil)
		x.Pass(2 * time.Minute)
		x.Must(stop())
		if !errors.Is(cause, queue.ErrLockLost) || ended < 29*time.Second || ended > 31*time.Second {
			x.Errorf("the handler's context ended after %s with %v; want after 30 s, with ErrLockLost", ended, cause)
		}
		if n := len(x.Stored(orders)); n != 0 {
			x.Errorf("%d messages are left, want none: the redelivery was handled", n)
		}
	})
}

// stallingBroker has queues whose Renew does not answer while stall is set.
type stallingBroker struct {
	driver.Broker
	stall atomic.Bool
}

func (p *stallingBroker) Open(ctx context.Context, queue string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := p.Broker.Open(ctx, queue, o)
	return &stallingQueue{q, p}, err
}

type stallingQueue struct {
	driver.Queue
	p *stallingBroker
}

func (q *stallingQueue) Renew(ctx context.Context, d []*driver.Delivery) []driver.RenewResult {
	if q.p.stall.Load() {
		<-ctx.Done()
		results := make([]driver.RenewResult, len(d))
		for i := range results {
			results[i].Err = ctx.Err()
		}
		return results
	}
	return q.Queue.Renew(ctx, d)
}

// A settle that fails for a passing reason is repeated; the message is handled
// once.
func TestPoolRepeatsSettle(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{Body: []byte("a")})
		faults := &fixturetest.FaultyBroker{Broker: x.Broker}
		c, err := queue.New(faults, &queue.Options{Keys: x.Ring, ReplayStore: x.Store, Logger: quiet(), Crypto: queue.CryptoConfig{Enabled: true, TrackReplays: true}})
		x.Must(err)
		r, err := c.Receiver(x.Context(), orders, &queue.ReceiverOptions{Wait: time.Second})
		x.Must(err)
		var runs atomic.Int32
		faults.SettleFails.Store(3)
		h := worker.HandlerFunc(func(context.Context, *queue.Delivery) error { runs.Add(1); return nil })
		_, stop := x.run(r, h, nil, nil)
		x.Pass(time.Minute)
		x.Must(stop())
		if runs.Load() != 1 || len(x.Stored(orders)) != 0 {
			x.Errorf("%d runs, %d left; want 1, 0", runs.Load(), len(x.Stored(orders)))
		}
	})
}

func TestPoolSessionsInOrder(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		const sessions, each = 12, 20
		s := x.Sender(orders)
		for i := range each {
			for j := range sessions {
				_, err := s.Send(x.Context(), &queue.Message{SessionID: fmt.Sprintf("s%d", j), ID: fmt.Sprintf("%d/%d", j, i), Body: []byte{byte(i)}})
				x.Must(err)
			}
		}
		var mu sync.Mutex
		next := map[string]byte{}
		running := map[string]bool{}
		fails := map[string]int{}
		h := worker.HandlerFunc(func(ctx context.Context, d *queue.Delivery) error {
			mu.Lock()
			if running[d.SessionID] {
				x.Errorf("two handlers at once in session %s", d.SessionID)
			}
			running[d.SessionID] = true
			if want := next[d.SessionID]; d.Body[0] != want {
				x.Errorf("session %s: message %d, want %d", d.SessionID, d.Body[0], want)
			}
			mu.Unlock()
			x.Pass(time.Second)
			mu.Lock()
			defer mu.Unlock()
			running[d.SessionID] = false
			if d.Body[0]%7 == 3 && fails[d.ID] < 2 {
				fails[d.ID]++
				return errors.New("again")
			}
			next[d.SessionID]++
			return nil
		})
		_, stop := x.run(x.Receiver(orders, nil), h,
			&worker.Options{Concurrency: 5},
			&worker.HandleOptions{Sessions: true, SessionTurn: 7, Retry: backoff.Fixed(5 * time.Second)})
		x.Pass(10 * time.Minute)
		x.Must(stop())
		for j := range sessions {
			if n := next[fmt.Sprintf("s%d", j)]; n != each {
				x.Errorf("session s%d: %d messages handled, want %d", j, n, each)
			}
		}
	})
}

// A busy queue does not starve an idle one, and weights share what both want.
func TestPoolWeights(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		p, err := worker.New(&worker.Options{Concurrency: 8})
		x.Must(err)
		var mu sync.Mutex
		handled := map[string]int{}
		h := worker.HandlerFunc(func(_ context.Context, d *queue.Delivery) error {
			// No two end at the same instant: then the scheduler, and not the weights, would say
			// who waits for the second slot.
			x.Pass(900*time.Millisecond + time.Duration(binary.BigEndian.Uint32(d.Body)))
			mu.Lock()
			defer mu.Unlock()
			handled[d.Queue]++
			return nil
		})
		lengths := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // G404: the same in each run
		for _, name := range []string{"heavy", "light"} {
			weight := map[string]int{"heavy": 3, "light": 1}[name]
			s := x.Sender(name)
			for range 1000 {
				_, err := s.Send(x.Context(), &queue.Message{Body: binary.BigEndian.AppendUint32(nil, lengths.Uint32N(200e6))}) // ns
				x.Must(err)
			}
			x.Must(p.Handle(x.Receiver(name, nil), h, &worker.HandleOptions{Weight: weight, Prefetch: 1}))
		}
		ctx, cancel := context.WithCancel(x.Context())
		done := make(chan error)
		go func() { done <- p.Run(ctx) }()
		x.Pass(100 * time.Second)
		mu.Lock()
		heavy, light := handled["heavy"], handled["light"]
		mu.Unlock()
		cancel()
		x.Must(<-done)
		if total := heavy + light; total < 750 {
			x.Errorf("%d messages in 100 s by 8 handlers of 1 s each", total)
		}
		if ratio := float64(heavy) / float64(light); ratio < 2.5 || ratio > 3.5 {
			x.Errorf("heavy:light = %d:%d, want 3:1", heavy, light)
		}
	})
}

func TestPoolDrain(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		s := x.Sender(orders)
		for range 20 {
			_, err := s.Send(x.Context(), &queue.Message{Body: []byte("x")})
			x.Must(err)
		}
		var finished, cancelled atomic.Int32
		h := worker.HandlerFunc(func(ctx context.Context, d *queue.Delivery) error {
			for i := range 60 {
				select {
				case <-time.After(time.Second):
				case <-ctx.Done():
					if !errors.Is(context.Cause(ctx), worker.ErrDraining) {
						x.Errorf("cause %v", context.Cause(ctx))
					}
					cancelled.Add(1)
					return ctx.Err()
				}
				if i == 19 && finished.Load() < 4 {
					break
				}
			}
			finished.Add(1)
			return nil
		})
		p, stop := x.run(x.Receiver(orders, nil), h, &worker.Options{Concurrency: 8}, nil)
		x.Pass(10 * time.Second)
		begin := time.Now()
		x.Must(p.Stop(x.Context()))
		if d := time.Since(begin); d > 16*time.Second {
			x.Errorf("the drain took %s", d)
		}
		x.Must(stop())
		if n := int(finished.Load() + cancelled.Load()); n < 8 || cancelled.Load() == 0 {
			x.Errorf("%d finished, %d cancelled", finished.Load(), cancelled.Load())
		}
		if n, want := len(x.Stored(orders)), 20-int(finished.Load()); n != want {
			x.Errorf("%d messages are left, want %d", n, want)
		}
		// What was given back can be had at once.
		r := x.Receiver(orders, nil)
		if d := x.One(r); d == nil {
			x.Error("nothing was given back")
		}
	})
}

func TestPoolRefusesHopelessRetries(t *testing.T) {
	untracked := func(_ *fixture, o *queue.Options) { o.Crypto.TrackReplays = false }
	inBubble(t, untracked, func(x *fixture) {
		p, err := worker.New(nil)
		x.Must(err)
		h := worker.HandlerFunc(func(context.Context, *queue.Delivery) error { return nil })
		r := x.Receiver(orders, nil)
		err = p.Handle(r, h, &worker.HandleOptions{Retry: backoff.Fixed(time.Minute), MaxDeliveries: 10})
		if !errors.Is(err, queue.ErrInvalidOptions) || !strings.Contains(err.Error(), "MaxMessageAge") {
			x.Errorf("Handle = %v, want ErrInvalidOptions that names MaxMessageAge", err)
		}
		x.Must(p.Handle(r, h, nil)) // the default fits itself in
	})
}

func TestPoolEndsWithQueue(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		r := x.Receiver(orders, nil)
		p, err := worker.New(nil)
		x.Must(err)
		x.Must(p.Handle(r, worker.HandlerFunc(func(context.Context, *queue.Delivery) error { return nil }), nil))
		done := make(chan error)
		go func() { done <- p.Run(x.Context()) }()
		x.Pass(time.Second)
		x.Must(r.Close(x.Context()))
		if err := <-done; !errors.Is(err, queue.ErrClosed) {
			x.Errorf("Run = %v, want ErrClosed", err)
		}
	})
}

func TestTypedHandler(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{ID: "good", Body: []byte(`{"n":7}`)})
		x.Send(&queue.Message{ID: "bad", Body: []byte(`{"n":`)})
		got := make(chan int, 2)
		h := worker.JSON(func(_ context.Context, v struct{ N int }, _ *queue.Delivery) error {
			got <- v.N
			return nil
		})
		_, stop := x.run(x.Receiver(orders, nil), h, nil, nil)
		x.Pass(time.Second)
		x.Must(stop())
		if n := <-got; n != 7 || len(got) != 0 {
			x.Errorf("handled %d and %d more, want 7 alone", n, len(got))
		}
		if got := x.DeadReasons(orders); !slices.Equal(got, []string{"undecodable"}) {
			x.Errorf("dead letters %v, want undecodable", got)
		}
	})
}
