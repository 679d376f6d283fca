package sbqueue_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/testbed/sbemulator"
)

const (
	longestCall   = 7 * time.Second // of one call about a session into a silent network
	longestOutage = 25 * time.Second
	callerPause   = 100 * time.Millisecond // before a caller asks again: some refusals take no time
)

// TestSilentSessions: whatever a holder of a session asks of a network that has fallen
// silent, each call ends within seconds, and within a few calls sessions are accepted over a
// new connection.
func TestSilentSessions(t *testing.T) {
	t.Parallel()
	for name, call := range map[string]func(context.Context, driver.Session, *driver.Delivery) error{
		"renew": func(ctx context.Context, s driver.Session, _ *driver.Delivery) error {
			_, err := s.RenewSession(ctx)
			return err
		},
		"settle": func(ctx context.Context, s driver.Session, d *driver.Delivery) error {
			return s.Settle(ctx, []driver.Settlement{{Delivery: d, Kind: driver.Complete}})[0]
		},
		"state": func(ctx context.Context, s driver.Session, _ *driver.Delivery) error {
			_, err := s.(driver.StatefulSession).State(ctx)
			return err
		},
		"set state": func(ctx context.Context, s driver.Session, _ *driver.Delivery) error {
			return s.(driver.StatefulSession).SetState(ctx, []byte("x"))
		},
		"accept only": nil,
	} {
		for _, id := range []string{"", "free"} {
			t.Run(fmt.Sprintf("%s, then accept %q", name, id), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					n := start(t, inMemory(), sbemulator.QueueOptions{RequiresSession: true, LockDuration: time.Minute})
					r := n.relayed(t, nil)
					q, err := r.broker(t, n, nil).Open(t.Context(), "q", nil)
					if err != nil {
						t.Fatal(err)
					}
					send(t, q, &driver.Message{ID: "a", SessionID: "held"})
					s := accept(t, q, "held")
					d := receive(t, s, 1)[0]
					send(t, n.open(t), &driver.Message{ID: "b", SessionID: "free"})
					r.silence()
					begin := time.Now()
					for call != nil {
						before := time.Now()
						err := call(context.Background(), s, d)
						if took := time.Since(before); err == nil || took > longestCall {
							t.Fatalf("into a silent network: %v after %s, want an error within %s", err, took, longestCall)
						}
						if errors.Is(err, driver.ErrSessionLost) || errors.Is(err, driver.ErrLockLost) {
							break // its connection is given up
						}
						if driver.KindOf(err) != driver.Unavailable || time.Since(begin) > longestOutage {
							t.Fatalf("%v after %s, want the session to be lost within %s", err, time.Since(begin), longestOutage)
						}
						time.Sleep(callerPause)
					}
					for {
						before := time.Now()
						s, err := q.AcceptSession(context.Background(), id, 2*time.Second)
						if took := time.Since(before); took > longestCall {
							t.Errorf("AcceptSession ended after %s: %v", took, err)
						}
						if err == nil {
							receive(t, s, 1)
							break
						}
						if driver.KindOf(err) != driver.Unavailable || time.Since(begin) > longestOutage {
							t.Fatalf("AcceptSession: %v after %s, want a session within %s", err, time.Since(begin), longestOutage)
						}
						time.Sleep(callerPause)
					}
				})
			})
		}
	}
}

// TestSilentAccept: a call that waits for the next session finds out that the network is
// silent, and goes on over a new connection.
func TestSilentAccept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := start(t, inMemory(), sbemulator.QueueOptions{RequiresSession: true, LockDuration: time.Minute})
		r := n.relayed(t, nil)
		q, err := r.broker(t, n, nil).Open(t.Context(), "q", nil)
		if err != nil {
			t.Fatal(err)
		}
		send(t, q, &driver.Message{ID: "a", SessionID: "first"})
		held := accept(t, q, "")
		r.silence()
		send(t, n.open(t), &driver.Message{ID: "b", SessionID: "next"})
		begin := time.Now()
		s, err := q.AcceptSession(t.Context(), "", time.Minute)
		if took := time.Since(begin); err != nil || took > longestOutage {
			t.Fatalf("AcceptSession: %v after %s, want a session within %s", err, took, longestOutage)
		}
		receive(t, s, 1)
		// What was held over the old connection is lost, and says so at once.
		begin = time.Now()
		if _, err := held.Receive(t.Context(), 1, time.Minute); !errors.Is(err, driver.ErrSessionLost) || time.Since(begin) > time.Second+slack {
			t.Errorf("Receive of a session of the old connection: %v after %s, want ErrSessionLost at once", err, time.Since(begin))
		}
	})
}

// TestUnansweredAccept: the service answers nothing to receivers that ask for a session, and
// everything else. No session is lost by that, in whose work nothing was asked meanwhile.
func TestUnansweredAccept(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"", "free"} {
		t.Run(fmt.Sprintf("%q", id), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n := start(t, inMemory(), sbemulator.QueueOptions{RequiresSession: true, LockDuration: 5 * time.Minute})
				q := n.open(t)
				send(t, q, &driver.Message{ID: "a", SessionID: "held"})
				held := accept(t, q, "held")
				d := receive(t, held, 1)[0]
				send(t, q, &driver.Message{ID: "b", SessionID: "free"})
				i := n.inject(t, sbemulator.Fault{On: sbemulator.OnAttach, Action: sbemulator.Ignore})
				for range 2 { // the connection would be replaced for each
					for begin := time.Now(); time.Since(begin) < 12*time.Second; {
						if _, err := q.AcceptSession(t.Context(), id, 11*time.Second); driver.KindOf(err) != driver.Unavailable {
							t.Fatalf("AcceptSession: %v, want that nothing was answered", err)
						}
					}
					if _, err := held.RenewSession(t.Context()); err != nil {
						t.Fatalf("RenewSession: %v", err)
					}
				}
				if i.Hits() < 2 {
					t.Errorf("%d attaches were not answered, want some", i.Hits())
				}
				i.Remove()
				if _, err := settle(t, held, d, driver.Complete); err != nil {
					t.Errorf("Settle: %v", err)
				}
				receive(t, accept(t, q, id), 1)
			})
		})
	}
}

// TestSilentReceiveOfSession: a Receive that waits in a session ends when its connection is
// replaced.
func TestSilentReceiveOfSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := start(t, inMemory(), sbemulator.QueueOptions{RequiresSession: true, LockDuration: time.Minute})
		r := n.relayed(t, nil)
		q, err := r.broker(t, n, nil).Open(t.Context(), "q", nil)
		if err != nil {
			t.Fatal(err)
		}
		send(t, q, &driver.Message{ID: "a", SessionID: "s"})
		s := accept(t, q, "s")
		receive(t, s, 1)
		waiting := make(chan error, 1)
		go func() {
			_, err := s.Receive(t.Context(), 1, 50*time.Second)
			waiting <- err
		}()
		r.silence()
		begin := time.Now()
		for {
			_, err := s.RenewSession(t.Context())
			if errors.Is(err, driver.ErrSessionLost) {
				break
			}
			if driver.KindOf(err) != driver.Unavailable {
				t.Fatal(err)
			}
			time.Sleep(callerPause)
		}
		if err := <-waiting; !errors.Is(err, driver.ErrSessionLost) || time.Since(begin) > longestOutage {
			t.Errorf("Receive: %v after %s, want ErrSessionLost within %s", err, time.Since(begin), longestOutage)
		}
	})
}

// TestSilentQueue: peeking, renewing and looking at dead letters go on over a new connection,
// each within one call.
func TestSilentQueue(t *testing.T) {
	t.Parallel()
	for name, call := range map[string]func(context.Context, driver.Queue, *driver.Delivery) error{
		"peek": func(ctx context.Context, q driver.Queue, _ *driver.Delivery) error {
			_, _, err := q.Peek(ctx, "", 1)
			return err
		},
		"renew": func(ctx context.Context, q driver.Queue, d *driver.Delivery) error {
			return q.Renew(ctx, []*driver.Delivery{d})[0].Err
		},
		"peek at dead letters": func(ctx context.Context, q driver.Queue, _ *driver.Delivery) error {
			dead, err := q.DeadLetters(ctx)
			if err == nil {
				_, _, err = dead.Peek(ctx, "", 1)
			}
			return err
		},
		"schedule": func(ctx context.Context, q driver.Queue, _ *driver.Delivery) error {
			return q.Send(ctx, []*driver.Message{{ID: "later", NotBefore: time.Now().Add(time.Hour)}})[0].Err
		},
		"postpone": func(ctx context.Context, q driver.Queue, d *driver.Delivery) error {
			return q.Settle(ctx, []driver.Settlement{{Delivery: d, Kind: driver.Abandon, Delay: time.Minute}})[0]
		},
		"dead-letter": func(ctx context.Context, q driver.Queue, d *driver.Delivery) error {
			return q.Settle(ctx, []driver.Settlement{{Delivery: d, Kind: driver.MoveToDeadLetter, Reason: "test"}})[0]
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n := start(t, inMemory(), sbemulator.QueueOptions{LockDuration: time.Minute})
				r := n.relayed(t, nil)
				q, err := r.broker(t, n, nil).Open(t.Context(), "q", nil)
				if err != nil {
					t.Fatal(err)
				}
				send(t, q, &driver.Message{ID: "a"})
				d := receive(t, q, 1)[0]
				r.silence()
				begin := time.Now()
				for {
					before := time.Now()
					err := call(context.Background(), q, d)
					if took := time.Since(before); took > 15*time.Second {
						t.Errorf("%v after %s, want an end within 15 s", err, took)
					}
					if err == nil || errors.Is(err, driver.ErrSettled) {
						break
					}
					if driver.KindOf(err) != driver.Unavailable || time.Since(begin) > longestOutage {
						t.Fatalf("%v after %s, want success within %s", err, time.Since(begin), longestOutage)
					}
					time.Sleep(callerPause)
				}
			})
		})
	}
}

// TestSilentReceive: a Receive that waits, with nothing else asked of the broker, finds out
// that the network is silent, and brings what comes over a new connection.
func TestSilentReceive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := start(t, inMemory(), sbemulator.QueueOptions{LockDuration: 5 * time.Second}) // what went over the old connection
		r := n.relayed(t, nil)
		q, err := r.broker(t, n, nil).Open(t.Context(), "q", nil)
		if err != nil {
			t.Fatal(err)
		}
		send(t, q, &driver.Message{ID: "a"})
		receive(t, q, 1)
		r.silence()
		send(t, n.open(t), &driver.Message{ID: "b"})
		begin := time.Now()
		for time.Since(begin) < time.Minute {
			d, err := q.Receive(t.Context(), 1, 20*time.Second)
			if err != nil && driver.KindOf(err) != driver.Unavailable {
				t.Fatal(err)
			}
			if len(d) > 0 {
				break
			}
		}
		if took := time.Since(begin); took > 30*time.Second {
			t.Errorf("received %s after the network fell silent, want 30 s at most", took)
		}
	})
}

// silentManagement is a management API that answers the first requests not at all.
type silentManagement struct {
	management
	left *atomic.Int64 // of these
}

// Do implements policy.Transporter.
func (m silentManagement) Do(r *http.Request) (*http.Response, error) {
	if m.left.Add(-1) >= 0 {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	return m.management.Do(r)
}

// TestSilentManagement: a request of the management API that is not answered is made again; if
// none is answered the call ends with a transient error, without a deadline of its caller's.
func TestSilentManagement(t *testing.T) {
	t.Parallel()
	for silent, want := range map[int64]error{1: nil, 100: driver.ErrUnavailable} {
		t.Run(fmt.Sprint(silent), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				left := new(atomic.Int64)
				left.Store(silent)
				b := managed(t, silentManagement{management{http.StatusOK, entry}, left})
				begin := time.Now()
				_, err := b.Properties(context.Background(), "orders")
				if took := time.Since(begin); !errors.Is(err, want) || took > 15*time.Second {
					t.Errorf("%v after %s, want %v within 15 s", err, took, want)
				}
			})
		})
	}
}
