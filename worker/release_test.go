package worker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/fixturetest"
	"github.com/queue-runtime/queue/observe"
	"github.com/queue-runtime/queue/queuetest"
	"github.com/queue-runtime/queue/worker"
)

// What does not count as a delivery, and what is not an error.

// TestLaterDoesNotCount: a service that asks to wait for half an hour costs a message
// no delivery, in and outside of sessions.
func TestLaterDoesNotCount(t *testing.T) {
	for _, sessions := range []bool{false, true} {
		t.Run(fmt.Sprintf("sessions %t", sessions), func(t *testing.T) {
			inBubble(t, nil, func(x *fixture) {
				x.Send(&queue.Message{ID: "m", SessionID: "s", Body: []byte("a")})
				var at []time.Duration
				begin := time.Now()
				h := worker.HandlerFunc(func(_ context.Context, d *queue.Delivery) error {
					at = append(at, time.Since(begin).Round(time.Second))
					if d.Count != 1 {
						x.Errorf("call %d has delivery %d, want 1", len(at), d.Count)
					}
					if len(at) <= 15 {
						return worker.Later(errors.New("429"), 2*time.Minute)
					}
					return nil
				})
				_, stop := x.run(x.Receiver(orders, nil), h, nil, &worker.HandleOptions{MaxDeliveries: 1, Sessions: sessions})
				x.Pass(40 * time.Minute)
				x.Must(stop())
				if len(at) != 16 || at[15] < 30*time.Minute {
					x.Errorf("called at %v, want 16 times in 30 minutes", at)
				}
				if n := len(x.Stored(orders)) + len(x.DeadReasons(orders)); n != 0 {
					x.Errorf("%d messages are left or dead, want none", n)
				}
			})
		})
	}
}

// TestDrainDoesNotCount: a handler of nine minutes under a restart every five loses no
// delivery.
func TestDrainDoesNotCount(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{ID: "m", Body: []byte("a")})
		var counts []int
		h := worker.HandlerFunc(func(ctx context.Context, d *queue.Delivery) error {
			counts = append(counts, d.Count)
			select {
			case <-time.After(9 * time.Minute):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		for range 12 {
			_, stop := x.run(x.Receiver(orders, nil), h, nil, &worker.HandleOptions{MaxDeliveries: 3})
			x.Pass(5 * time.Minute)
			x.Must(stop())
		}
		if len(counts) != 12 || slices.Max(counts) != 1 {
			x.Errorf("deliveries %v, want twelve times the first", counts)
		}
		if strings.Contains(x.Log.String(), `"level":"WARN"`) {
			x.Errorf("a drain is a warning:\n%s", x.Log)
		}
	})
}

// TestProbesDoNotCount: an outage of three hours that the breaker knows of costs few
// messages no deliveries but those that opened it.
func TestProbesDoNotCount(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		for i := range 5 {
			x.Send(&queue.Message{ID: fmt.Sprint("m", i), Body: []byte("a")})
		}
		var down atomic.Bool
		down.Store(true)
		var highest, calls atomic.Int64
		h := worker.HandlerFunc(func(_ context.Context, d *queue.Delivery) error {
			calls.Add(1)
			highest.Store(max(highest.Load(), int64(d.Count)))
			if down.Load() {
				return errors.New("the service is away")
			}
			return nil
		})
		b, err := backoff.NewBreaker(nil)
		x.Must(err)
		_, stop := x.run(x.Receiver(orders, nil), h, &worker.Options{Concurrency: 1},
			&worker.HandleOptions{Downstream: b, Retry: backoff.Fixed(time.Second), MaxDeliveries: 5})
		x.Pass(3 * time.Hour)
		down.Store(false)
		x.Pass(10 * time.Minute)
		x.Must(stop())
		if n := len(x.Stored(orders)) + len(x.DeadReasons(orders)); n != 0 {
			x.Errorf("%d messages are left or dead, want none", n)
		}
		if calls.Load() < 300 || highest.Load() > 5 {
			x.Errorf("%d calls, up to delivery %d; want one every 30 s, and no more than 5", calls.Load(), highest.Load())
		}
	})
}

// TestExpiredBeforeHandlerIsReleased: what lost its lock before a handler saw it is
// released, not abandoned.
func TestExpiredBeforeHandlerIsReleased(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{ID: "m", Body: []byte("a")})
		kinds := &settleKinds{Broker: x.Broker, late: 31 * time.Second}
		c, err := queue.New(kinds, &queue.Options{Keys: x.Ring, Logger: quiet()})
		x.Must(err)
		r, err := c.Receiver(x.Context(), orders, &queue.ReceiverOptions{Wait: time.Second})
		x.Must(err)
		h := worker.HandlerFunc(func(context.Context, *queue.Delivery) error { return nil })
		_, stop := x.run(r, h, nil, nil)
		x.Pass(3 * time.Minute)
		x.Must(stop())
		if got := slices.Sorted(slices.Values(kinds.all())); !slices.Equal(got, []driver.SettleKind{driver.Complete, driver.Release}) {
			x.Errorf("settled by %v, want each of completed and released once", got)
		}
	})
}

// settleKinds remembers how deliveries were settled. Its first answer to Receive is
// late.
type settleKinds struct {
	driver.Broker
	once  sync.Once
	late  time.Duration
	mu    sync.Mutex
	kinds []driver.SettleKind
}

func (p *settleKinds) all() []driver.SettleKind {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.kinds)
}

func (p *settleKinds) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := p.Broker.Open(ctx, name, o)
	return &settleKindsQueue{q, p}, err
}

type settleKindsQueue struct {
	driver.Queue
	p *settleKinds
}

func (q *settleKindsQueue) Receive(ctx context.Context, n int, wait time.Duration) ([]*driver.Delivery, error) {
	d, err := q.Queue.Receive(ctx, n, wait)
	q.p.once.Do(func() { <-time.After(q.p.late) })
	return d, err
}

func (q *settleKindsQueue) Settle(ctx context.Context, all []driver.Settlement) []error {
	q.p.mu.Lock()
	for _, s := range all {
		q.p.kinds = append(q.p.kinds, s.Kind)
	}
	q.p.mu.Unlock()
	return q.Queue.Settle(ctx, all)
}

// watcher is an Observer that remembers what a pool tells.
type watcher struct {
	observe.Nop
	mu       sync.Mutex
	handled  []observe.Handled
	results  []observe.Result
	retried  []observe.Retried
	inFlight int
}

func (w *watcher) Begin(ctx context.Context, _ observe.Source, op observe.Operation) (context.Context, func(observe.Result)) {
	return ctx, func(r observe.Result) {
		if op.Kind == observe.Process {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.results = append(w.results, r)
		}
	}
}

func (w *watcher) Handled(_ context.Context, _ observe.Source, e observe.Handled) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.handled = append(w.handled, e)
}

func (w *watcher) Retried(_ context.Context, _ observe.Source, e observe.Retried) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.retried = append(w.retried, e)
}

func (w *watcher) InFlight(_ context.Context, _ observe.Source, e observe.InFlight) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.inFlight += e.Delta
}

// TestPlannedRetryIsNoError: RetryAfter and Later are neither an error of the operation
// nor a warning, and OnError gets them all the same. A failure is all three.
func TestPlannedRetryIsNoError(t *testing.T) {
	failed := errors.New("failed")
	for _, c := range []struct {
		name    string
		err     error
		want    driver.Disposition
		delay   time.Duration
		planned bool
	}{
		{"RetryAfter", worker.RetryAfter(failed, time.Minute), driver.Abandoned, time.Minute, true},
		{"Later", worker.Later(failed, time.Minute), driver.Released, time.Minute, true},
		{"failure", failed, driver.Abandoned, time.Second, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &watcher{}
			inBubble(t, func(_ *fixture, o *queue.Options) { o.Observer = w }, func(x *fixture) {
				x.Send(&queue.Message{ID: "m", Body: []byte("a")})
				var reported []error
				first := true
				h := worker.HandlerFunc(func(context.Context, *queue.Delivery) error {
					if !first {
						return nil
					}
					first = false
					return c.err
				})
				_, stop := x.run(x.Receiver(orders, nil), h,
					&worker.Options{OnError: func(_ context.Context, _ *queue.Delivery, err error) { reported = append(reported, err) }},
					&worker.HandleOptions{Retry: backoff.Fixed(time.Second)})
				x.Pass(5 * time.Minute)
				x.Must(stop())
				if len(w.results) != 2 || len(w.handled) != 2 || w.inFlight != 0 {
					x.Fatalf("results %+v, handled %+v, %d in flight; want two, two, none", w.results, w.handled, w.inFlight)
				}
				var want error
				if !c.planned {
					want = c.err
				}
				if got := w.results[0]; got.Err != want || got.Disposition != c.want {
					x.Errorf("the operation ended with %+v, want %v and %s", got, want, c.want)
				}
				if got := w.handled[0]; got.Err != want || got.Disposition != c.want {
					x.Errorf("handled %+v, want %v and %s", got, want, c.want)
				}
				if !slices.Equal(w.retried, []observe.Retried{{Delay: c.delay, Planned: c.planned}}) {
					x.Errorf("retried %+v, want once after %s, planned %t", w.retried, c.delay, c.planned)
				}
				if got := w.handled[1]; got.Err != nil || got.Disposition != driver.Completed {
					x.Errorf("then handled %+v, want completed", got)
				}
				if len(reported) != 1 || !errors.Is(reported[0], failed) {
					x.Errorf("OnError got %v, want the cause", reported)
				}
				if warned := strings.Contains(x.Log.String(), `"level":"WARN"`); warned == c.planned {
					x.Errorf("a warning: %t, want %t\n%s", warned, !c.planned, x.Log)
				}
			})
		})
	}
}

// TestNoDeadLetterQueue: without a dead-letter queue a message that is given up is not
// lost and does not come round in a loop, and what is told of it is true.
func TestNoDeadLetterQueue(t *testing.T) {
	w := &watcher{}
	inBubble(t, nil, func(x *fixture) {
		p := &fixturetest.FaultyBroker{Broker: x.Broker, Caps: func(c *driver.Capabilities) { c.DeadLetter = driver.None }}
		c, err := queue.New(p, &queue.Options{Keys: x.Ring, Logger: quiet(), Observer: w, Crypto: queue.CryptoConfig{MaxMessageAge: 2 * time.Hour}})
		x.Must(err)
		r, err := c.Receiver(x.Context(), orders, &queue.ReceiverOptions{Wait: time.Second})
		x.Must(err)
		x.Send(&queue.Message{ID: "m", Body: []byte("a")})
		runs := 0
		h := worker.HandlerFunc(func(context.Context, *queue.Delivery) error {
			runs++
			return errors.New("failed")
		})
		_, stop := x.run(r, h, nil, &worker.HandleOptions{Retry: backoff.Never{}})
		x.Pass(12 * time.Minute)
		x.Must(stop())
		if runs != 3 || len(x.Stored(orders)) != 1 {
			x.Errorf("%d runs in 12 minutes, %d left; want one every 5 minutes, and the message", runs, len(x.Stored(orders)))
		}
		for _, e := range w.handled {
			if e.Disposition != driver.Abandoned {
				x.Errorf("told as %s, want abandoned", e.Disposition)
			}
		}
	})
}

// TestStop: Stop waits for the drain; when its context ends first, the handlers'
// contexts end at once.
func TestStop(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{ID: "m", Body: []byte("a")})
		var cause error
		h := worker.HandlerFunc(func(ctx context.Context, _ *queue.Delivery) error {
			<-ctx.Done()
			cause = context.Cause(ctx)
			return ctx.Err()
		})
		p, stop := x.run(x.Receiver(orders, nil), h, nil, nil)
		x.Pass(time.Second)
		begin := time.Now()
		ctx, cancel := context.WithTimeout(x.Context(), 3*time.Second)
		defer cancel()
		if err := p.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
			x.Errorf("Stop = %v, want the error of its context", err)
		}
		x.Must(p.Stop(x.Context())) // waits for Run
		if took := time.Since(begin); took != 3*time.Second {
			x.Errorf("Run returned after %s, want 3 s: the handler returned at once", took)
		}
		if !errors.Is(cause, worker.ErrDraining) {
			x.Errorf("cause %v, want ErrDraining", cause)
		}
		x.Must(stop())
		over, end := context.WithCancel(x.Context())
		end()
		if err := p.Stop(over); err != nil && !errors.Is(err, context.Canceled) {
			x.Errorf("Stop after Run = %v", err)
		}
	})
}

// TestStopBeforeRun: a Run that comes after Stop returns at once.
func TestStopBeforeRun(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		p, err := worker.New(nil)
		x.Must(err)
		h := worker.HandlerFunc(func(context.Context, *queue.Delivery) error { return nil })
		r := x.Receiver(orders, nil)
		if err := p.Run(x.Context()); !errors.Is(err, queue.ErrInvalidOptions) {
			x.Errorf("Run without a queue = %v, want ErrInvalidOptions", err)
		}
		x.Must(p.Handle(r, h, nil))
		if err := p.Handle(r, h, nil); !errors.Is(err, queue.ErrInvalidOptions) {
			x.Errorf("a second handler of a Receiver: %v, want ErrInvalidOptions", err)
		}
		x.Must(p.Stop(x.Context()))
		x.Must(p.Run(x.Context()))
		x.Must(p.Stop(x.Context()))
		err = p.Run(x.Context())
		var e *queue.Error
		if !errors.Is(err, queue.ErrInvalidOptions) || !errors.As(err, &e) || e.Op != "run" {
			x.Errorf("a second Run = %v, want a *queue.Error with ErrInvalidOptions", err)
		}
		if err := p.Handle(x.Receiver("other", nil), h, nil); !errors.Is(err, queue.ErrInvalidOptions) {
			x.Errorf("Handle after Run = %v, want ErrInvalidOptions", err)
		}
	})
}

// TestDrainWithSilentBroker: a drain ends within 25 s although the broker answers
// nothing from its beginning on, neither to what was fetched nor to what is settled.
func TestDrainWithSilentBroker(t *testing.T) {
	for _, sessions := range []bool{false, true} {
		t.Run(fmt.Sprintf("sessions %t", sessions), func(t *testing.T) {
			inBubble(t, nil, func(x *fixture) {
				for i := range 3 {
					x.Send(&queue.Message{SessionID: fmt.Sprint("s", i), Body: []byte("a")})
				}
				r, p := x.through(nil)
				h := worker.HandlerFunc(func(ctx context.Context, _ *queue.Delivery) error {
					<-ctx.Done()
					return ctx.Err()
				})
				_, stop := x.run(r, h, nil, &worker.HandleOptions{Sessions: sessions})
				x.Pass(10 * time.Second)
				p.Inject(queuetest.Fault{Stall: true})
				begin := time.Now()
				err := stop()
				if took := time.Since(begin); took > 25*time.Second {
					x.Errorf("the drain took %s, want less than 25 s", took)
				}
				if err != nil && !errors.Is(err, worker.ErrHandlersRunning) {
					x.Errorf("Run = %v", err)
				}
				p.Heal()
				x.Pass(2 * time.Minute) // for what is left to end
			})
		})
	}
}
