package worker_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/queuetest"
	"github.com/queue-runtime/queue/worker"
)

// inField runs f with an application's fixture: Strict options and the broker's defaults.
func inField(t *testing.T, q memqueue.QueueOptions, f func(t *testing.T, x *queuetest.Fixture, s *queue.Sender, r *queue.Receiver)) {
	t.Helper()
	inFieldSeeded(t, 7, q, f)
}

// inFieldSeeded is inField with another order of what the broker does at random.
func inFieldSeeded(t *testing.T, seed uint64, q memqueue.QueueOptions, f func(t *testing.T, x *queuetest.Fixture, s *queue.Sender, r *queue.Receiver)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		q.Retention = 24 * time.Hour
		x := queuetest.New(t, &queuetest.Options{Queues: &memqueue.Options{Default: q}, Seed: seed})
		s, err := x.Sender(t.Context(), orders, nil)
		if err != nil {
			t.Fatal(err)
		}
		r, err := x.Receiver(t.Context(), orders, nil)
		if err != nil {
			t.Fatal(err)
		}
		f(t, x, s, r)
	})
}

// sendSome sends n messages.
func sendSome(t *testing.T, s *queue.Sender, n int) {
	t.Helper()
	for i := range n {
		if _, err := s.Send(t.Context(), &queue.Message{ID: fmt.Sprint(i), Body: []byte("x")}); err != nil {
			t.Fatal(err)
		}
	}
}

// runFor runs a pool for d.
func runFor(t *testing.T, d time.Duration, r *queue.Receiver, o *worker.HandleOptions, h worker.HandlerFunc) {
	t.Helper()
	p, err := worker.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Handle(r, h, o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := p.Run(ctx); err != nil {
		t.Error(err)
	}
}

// A job that never fails, and is only interrupted by deploys, is not given up.
func TestDrainsDoNotSpendDeliveries(t *testing.T) {
	inField(t, memqueue.QueueOptions{}, func(t *testing.T, x *queuetest.Fixture, s *queue.Sender, r *queue.Receiver) {
		sendSome(t, s, 1)
		runs := 0
		for range 15 { // deploys, 5 minutes apart
			runFor(t, 5*time.Minute, r, nil, func(ctx context.Context, _ *queue.Delivery) error {
				runs++
				select {
				case <-time.After(9 * time.Minute):
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
		}
		if dead := x.DeadLettered(t.Context(), orders); len(dead) > 0 || runs < 15 {
			t.Errorf("after %d interrupted runs and no failure: dead letters %v", runs, dead)
		}
	})
}

// A job that is put off because of a rate limit of others for half an hour is no failure.
func TestPutOffIsNoFailure(t *testing.T) {
	inField(t, memqueue.QueueOptions{}, func(t *testing.T, x *queuetest.Fixture, s *queue.Sender, r *queue.Receiver) {
		sendSome(t, s, 1)
		begin, done := time.Now(), false
		runFor(t, 2*time.Hour, r, nil, func(context.Context, *queue.Delivery) error {
			if time.Since(begin) < 30*time.Minute {
				return worker.Later(nil, 2*time.Minute) // 429, Retry-After: 120
			}
			done = true
			return nil
		})
		if dead := x.DeadLettered(t.Context(), orders); !done || len(dead) > 0 {
			t.Errorf("done %t, dead letters %v", done, dead)
		}
	})
}

// An outage of three hours that the breaker of the downstream knows of costs no message.
func TestDownstreamOutage(t *testing.T) {
	for _, n := range []int{5, 20, 200} {
		inField(t, memqueue.QueueOptions{}, func(t *testing.T, x *queuetest.Fixture, s *queue.Sender, r *queue.Receiver) {
			sendSome(t, s, n)
			b, err := backoff.NewBreaker(nil)
			if err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			var done atomic.Int64
			runFor(t, 5*time.Hour, r, &worker.HandleOptions{Downstream: b}, func(context.Context, *queue.Delivery) error {
				if time.Since(begin) < 3*time.Hour {
					return errors.New("connection refused")
				}
				done.Add(1)
				return nil
			})
			if dead := x.DeadLettered(t.Context(), orders); len(dead) > 0 || done.Load() != int64(n) {
				t.Errorf("%d of %d done, %d dead letters", done.Load(), n, len(dead))
			}
		})
	}
}

// A drain with the defaults ends within the 30 s that Kubernetes, ECS and Heroku give, with
// room to give messages back.
func TestDefaultDrainFitsThePlatform(t *testing.T) {
	inField(t, memqueue.QueueOptions{}, func(t *testing.T, _ *queuetest.Fixture, s *queue.Sender, r *queue.Receiver) {
		sendSome(t, s, 1)
		begin := time.Now()
		runFor(t, time.Second, r, nil, func(ctx context.Context, _ *queue.Delivery) error {
			<-ctx.Done()
			return ctx.Err()
		})
		if took := time.Since(begin) - time.Second; took > 25*time.Second {
			t.Errorf("Run returned %s after its context ended, want 25 s at the most", took)
		}
	})
}

// A broker that fails half of all calls for ten minutes while 300 messages are in flight:
// none is stuck or lost afterwards.
func TestNothingStuckAfterAStorm(t *testing.T) {
	for seed := range uint64(8) {
		inFieldSeeded(t, seed, memqueue.QueueOptions{MaxDeliveries: -1}, func(t *testing.T, x *queuetest.Fixture, s *queue.Sender, _ *queue.Receiver) {
			r, err := x.Receiver(t.Context(), orders, &queue.ReceiverOptions{MaxDeliveries: 1000})
			if err != nil {
				t.Fatal(err)
			}
			const n = 300
			sendSome(t, s, n)
			x.Broker.Inject(queuetest.Fault{Rate: 0.5, Err: queuetest.Throttle(time.Second)}, queuetest.Fault{On: queuetest.Settle, Rate: 0.2, LostAnswer: queuetest.Unavailable()},
				queuetest.Fault{On: queuetest.Renew, Rate: 0.3, Stall: true}, queuetest.Fault{On: queuetest.Receive, Rate: 0.1, LoseLock: true})
			time.AfterFunc(10*time.Minute, x.Broker.Heal)
			var mu sync.Mutex
			done := map[string]int{}
			runFor(t, time.Hour, r, nil, func(_ context.Context, d *queue.Delivery) error {
				time.Sleep(2 * time.Second)
				mu.Lock()
				defer mu.Unlock()
				done[d.ID]++
				return nil
			})
			st, err := r.Stats(t.Context())
			if err != nil || len(done) != n || st.InFlight+st.Ready+st.Scheduled != 0 {
				t.Errorf("seed %d: %d of %d ran; left %+v, %v", seed, len(done), n, st, err)
			}
			if dead := x.DeadLettered(t.Context(), orders); len(dead) > 0 {
				t.Errorf("seed %d: %d dead letters, the first for %s", seed, len(dead), dead[0].DeadLetter.Reason)
			}
		})
	}
}

// A retry with a delay whose copy was made, and whose answer was lost, is handled once: the
// copy keeps the identity, so that a replay store knows the second one.
func TestLostAnswerToADelayedRetry(t *testing.T) {
	inField(t, memqueue.QueueOptions{}, func(t *testing.T, x *queuetest.Fixture, s *queue.Sender, r *queue.Receiver) {
		// The broker holds two copies, as one does whose abandon with a delay sends a copy.
		x.Broker.Inject(queuetest.Fault{On: queuetest.Send, Times: 1, Duplicate: true})
		sendSome(t, s, 1)
		var calls, completed atomic.Int64
		runFor(t, 3*time.Hour, r, nil, func(context.Context, *queue.Delivery) error {
			if calls.Add(1) == 1 {
				return worker.RetryAfter(nil, time.Minute)
			}
			completed.Add(1)
			return nil
		})
		st, err := r.Stats(t.Context())
		if err != nil || completed.Load() != 1 || st.Ready+st.Scheduled+st.DeadLetters != 0 {
			t.Errorf("handled %d times, left %+v, %v; want once and nothing", completed.Load(), st, err)
		}
	})
}

// Callers that give up at random moments, of which most fall into a fetch, spend nothing of the
// messages that they never had, and leave none locked.
func TestCallersThatGiveUpAtRandom(t *testing.T) {
	inField(t, memqueue.QueueOptions{Lock: time.Hour}, func(t *testing.T, x *queuetest.Fixture, s *queue.Sender, r *queue.Receiver) {
		const n, callers, calls = 400, 4, 400
		for i := range n {
			if _, err := s.Send(t.Context(), &queue.Message{ID: fmt.Sprint(i), Body: make([]byte, 64<<10)}); err != nil {
				t.Fatal(err)
			}
		}
		var had sync.Map
		var all sync.WaitGroup
		for w := range uint64(callers) {
			all.Go(func() {
				random := rand.New(rand.NewPCG(w, 9))
				for range calls {
					ctx, cancel := context.WithCancel(t.Context())
					at := random.IntN(60)
					all.Go(func() {
						for range at {
							runtime.Gosched()
						}
						cancel()
					})
					batch, err := r.Receive(ctx, 5)
					if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, queue.ErrNoMessage) {
						t.Error(err)
					}
					for _, d := range batch {
						had.Store(d.ID, d.Count)
						if d.Count > 1 {
							t.Errorf("delivery %d of %s, which no caller had before", d.Count, d.ID)
						}
						if err := d.Complete(context.Background()); err != nil {
							t.Error(err)
						}
					}
					cancel()
				}
			})
		}
		all.Wait()
		st, err := r.Stats(t.Context())
		seen := 0
		had.Range(func(any, any) bool { seen++; return true })
		if err != nil || st.InFlight != 0 || int(st.Ready) != n-seen || st.DeadLetters != 0 {
			t.Errorf("%d of %d were had; left %+v, %v", seen, n, st, err)
		}
	})
}
