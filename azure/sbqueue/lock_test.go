package sbqueue_test

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/azure/sbqueue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/testbed/sbemulator"
	"github.com/queue-runtime/queue/worker"
)

// process runs a processor with this handler over n's queue until the test ends.
func process(t *testing.T, n *namespace, h worker.HandlerFunc) {
	t.Helper()
	c, err := queue.New(n.broker(t), &queue.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Receiver(t.Context(), "q", &queue.ReceiverOptions{Wait: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	p, err := worker.New(&worker.Options{Concurrency: 2})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Handle(r, h, nil); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if err := c.Close(context.Background()); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
}

// after is d later, or the end of ctx, whichever is first.
func after(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// handlerLock is a lock that a handler of TestHandlerKeepsLock keeps, so many times.
const (
	handlerLock  = 5 * time.Second
	handlerLocks = 10
)

// A handler that runs for several lock durations keeps its lock: no other receiver gets
// the message, and it is completed.
func TestHandlerKeepsLock(t *testing.T) {
	t.Parallel()
	for name, sessions := range map[string]bool{"queue": false, "session": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { handlerKeepsLock(t, sessions) })
		})
	}
}

func handlerKeepsLock(t *testing.T, sessions bool) {
	n := start(t, inMemory(), sbemulator.QueueOptions{RequiresSession: sessions, LockDuration: handlerLock})
	var calls atomic.Int64
	outcome := make(chan error, 10)
	handler := func(ctx context.Context, _ *queue.Delivery) error {
		calls.Add(1)
		err := after(ctx, handlerLocks*handlerLock)
		outcome <- err
		return err
	}
	process(t, n, handler)
	process(t, n, handler) // another, for what is not kept
	m := &driver.Message{ID: "a"}
	if sessions {
		m.SessionID = "s"
	}
	send(t, n.open(t), m)
	if err := <-outcome; err != nil {
		t.Errorf("the handler's context ended: %v", err)
	}
	if !eventually(10*time.Second, func() bool {
		st, err := n.Stats("q")
		return err == nil && st.Active+st.Locked+st.DeadLetters == 0
	}) {
		st, err := n.Stats("q")
		t.Errorf("not completed: %+v, %v", st, err)
	}
	if calls.Load() != 1 {
		t.Errorf("delivered %d times", calls.Load())
	}
}

// lossLock is short: what the broker takes away is seen at the next renewal, after
// half of what is left.
const lossLock = 1500 * time.Millisecond

// A lock that is lost is seen within a second: the handler's context ends, with
// the cause.
func TestHandlerSeesLoss(t *testing.T) {
	t.Parallel()
	losses := map[string]struct {
		sessions bool
		// strike takes the lock away, and returns when that takes effect.
		strike func(*testing.T, *namespace, *queue.Delivery) time.Time
		want   error
	}{
		"broker": {false, func(t *testing.T, n *namespace, _ *queue.Delivery) time.Time {
			stored, err := n.Messages("q")
			if err == nil {
				err = n.ExpireLock("q", stored[0].SequenceNumber)
			}
			if err != nil {
				t.Error(err)
			}
			return time.Now()
		}, queue.ErrLockLost},
		"outage": {false, func(t *testing.T, n *namespace, d *queue.Delivery) time.Time {
			if _, err := n.Inject(sbemulator.Fault{On: sbemulator.OnManage, Action: sbemulator.Refuse, Status: 503}); err != nil {
				t.Error(err)
			}
			return d.HeldUntil()
		}, queue.ErrLockLost},
		"broker, session": {true, func(t *testing.T, n *namespace, _ *queue.Delivery) time.Time {
			if err := n.ExpireSession("q", "s"); err != nil {
				t.Error(err)
			}
			return time.Now()
		}, queue.ErrSessionLost},
		"outage, session": {true, func(t *testing.T, n *namespace, d *queue.Delivery) time.Time {
			if _, err := n.Inject(sbemulator.Fault{On: sbemulator.OnManage, Action: sbemulator.Refuse, Status: 503}); err != nil {
				t.Error(err)
			}
			return d.HeldUntil()
		}, queue.ErrSessionLost},
		"connection, session": {true, func(_ *testing.T, n *namespace, _ *queue.Delivery) time.Time {
			n.DropConnections()
			return time.Now()
		}, queue.ErrSessionLost},
	}
	for name, loss := range losses {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n := start(t, inMemory(), sbemulator.QueueOptions{RequiresSession: loss.sessions, LockDuration: lossLock, MaxDeliveryCount: 100})
				seen := make(chan error, 1)
				var late atomic.Int64
				var first atomic.Bool
				process(t, n, func(ctx context.Context, d *queue.Delivery) error {
					if first.Swap(true) {
						return nil
					}
					// In the middle of its life, between two renewals.
					if err := after(ctx, lossLock*3/4); err != nil {
						seen <- err
						return err
					}
					at := loss.strike(t, n, d)
					err := after(ctx, 20*lossLock)
					late.Store(int64(time.Since(at)))
					seen <- err
					return err
				})
				m := &driver.Message{ID: "a"}
				if loss.sessions {
					m.SessionID = "s"
				}
				send(t, n.open(t), m)
				if err := <-seen; !errors.Is(err, loss.want) {
					t.Errorf("the cause is %v, want %v", err, loss.want)
				}
				// A renewal may have been on its way when the lock was taken.
				if took := time.Duration(late.Load()); took > time.Second+slack {
					t.Errorf("seen after %s", took)
				}
				t.Logf("seen after %s", time.Duration(late.Load()).Round(time.Millisecond))
			})
		})
	}
}

// TestLockEndsByOwnClock: the end of a lock is a lock duration from its receipt, and
// from its renewal, whatever the broker's clock says: behind by more than a lock, so
// that each message would be over on arrival, a little behind, or ahead.
func TestLockEndsByOwnClock(t *testing.T) {
	t.Parallel()
	const lock = 20 * time.Second
	for name, shift := range map[string]time.Duration{
		"behind by more than a lock": -25 * time.Second, "behind": -15 * time.Second, "ahead": time.Hour,
	} {
		for kind, sessions := range map[string]bool{"queue": false, "sessions": true} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					n := start(t, inMemory(), sbemulator.QueueOptions{RequiresSession: sessions, LockDuration: lock})
					q, err := n.relayed(t, shiftLocks(shift)).broker(t, n, nil).Open(t.Context(), "q", nil)
					if err != nil {
						t.Fatal(err)
					}
					checkLocks(t, q, sessions, lock-5*time.Second, lock)
				})
			})
		}
	}
}

// TestAssumedLock: if nothing tells how long the queue locks, what the broker tells
// of each lock is heeded as far as it can be true: a lock is neither taken for longer
// than it is nor for over when it begins.
func TestAssumedLock(t *testing.T) {
	t.Parallel()
	const lock = 30 * time.Second // below the one that is assumed
	for name, c := range map[string]struct{ shift, least, most time.Duration }{
		"clocks agree":               {0, lock - 5*time.Second, lock + time.Second},
		"behind by more than a lock": {-time.Minute, time.Second, 5 * time.Second},
	} {
		for kind, sessions := range map[string]bool{"queue": false, "sessions": true} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					n := start(t, inMemory(), sbemulator.QueueOptions{RequiresSession: sessions, LockDuration: lock})
					o := &sbqueue.Options{Default: sbqueue.QueueOptions{Sessions: sessions}}
					q, err := n.relayed(t, shiftLocks(c.shift)).broker(t, n, o).Open(t.Context(), "q", nil)
					if err != nil {
						t.Fatal(err)
					}
					checkLocks(t, q, sessions, c.least, c.most)
				})
			})
		}
	}
}

// checkLocks wants every lock of a message to end after least to longest from now.
func checkLocks(t *testing.T, q driver.Queue, sessions bool, least, longest time.Duration) {
	t.Helper()
	send(t, q, &driver.Message{ID: "a", SessionID: "s"})
	var from driver.Source = q
	check := func(what string, until time.Time) {
		t.Helper()
		if left := time.Until(until); left > longest || left < least {
			t.Errorf("%s: %s are left of the lock, want %s to %s", what, left, least, longest)
		}
	}
	if sessions {
		s := accept(t, q, "s")
		check("AcceptSession", s.LockedUntil())
		until, err := s.RenewSession(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		check("RenewSession", until)
		from = s
	}
	d := receive(t, from, 1)
	check("Receive", d[0].LockedUntil)
	r := from.Renew(t.Context(), d)[0]
	if r.Err != nil {
		t.Fatal(r.Err)
	}
	check("Renew", r.LockedUntil)
	if _, err := settle(t, from, d[0], driver.Complete); err != nil {
		t.Errorf("Complete: %v", err)
	}
}
