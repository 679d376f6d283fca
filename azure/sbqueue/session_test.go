package sbqueue_test

import (
	"context"
	"crypto/fips140"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/testbed/sbemulator"
)

// newLock passes in a bubble before a session may be taken anew: then its lock ends later than
// before.
const newLock = 10 * time.Millisecond

// A session whose link, connection or lock was lost is lost, whichever call finds
// it out, and is never attached again by its name.
func TestSessionLost(t *testing.T) {
	const busy = "com.microsoft:server-busy"
	losses := map[string]func(*namespace) error{
		"":       func(n *namespace) error { _, err := n.DetachLinks("q", "", ""); return err },
		busy:     func(n *namespace) error { _, err := n.DetachLinks("q", busy, ""); return err },
		"drop":   func(n *namespace) error { n.DropConnections(); return nil },
		"expiry": func(n *namespace) error { return n.ExpireSession("q", "s") },
	}
	calls := map[string]func(context.Context, driver.Session, *driver.Delivery) (error, error){
		"receive": func(ctx context.Context, s driver.Session, _ *driver.Delivery) (got, want error) {
			_, err := s.Receive(ctx, 1, 5*time.Second)
			return err, driver.ErrSessionLost
		},
		"renew": func(ctx context.Context, s driver.Session, _ *driver.Delivery) (got, want error) {
			_, err := s.RenewSession(ctx)
			return err, driver.ErrSessionLost
		},
		"renew delivery": func(ctx context.Context, s driver.Session, d *driver.Delivery) (got, want error) {
			return s.Renew(ctx, []*driver.Delivery{d})[0].Err, driver.ErrLockLost
		},
		"settle": func(ctx context.Context, s driver.Session, d *driver.Delivery) (got, want error) {
			return s.Settle(ctx, []driver.Settlement{{Delivery: d, Kind: driver.Complete}})[0], driver.ErrLockLost
		},
		"state": func(ctx context.Context, s driver.Session, _ *driver.Delivery) (got, want error) {
			_, err := s.(driver.StatefulSession).State(ctx)
			return err, driver.ErrSessionLost
		},
	}
	for loss, strike := range losses {
		for first, call := range calls {
			t.Run(loss+" "+first, func(t *testing.T) {
				bubbleUnless(t, spins(loss), func(t *testing.T, so *sbemulator.Options) {
					n := start(t, so, sbemulator.QueueOptions{RequiresSession: true})
					q := n.open(t)
					send(t, q, &driver.Message{ID: "a", SessionID: "s"}, &driver.Message{ID: "b", SessionID: "s"})
					s := accept(t, q, "s")
					d := receive(t, s, 1)[0]
					if so != nil {
						time.Sleep(newLock)
					}
					if err := strike(n); err != nil {
						t.Fatal(err)
					}
					begin := time.Now()
					if got, want := call(t.Context(), s, d); !errors.Is(got, want) {
						t.Errorf("the first call: %v, want %v", got, want)
					}
					if took := time.Since(begin); took > 5*time.Second+slack {
						t.Errorf("the first call took %s", took)
					}
					for name, call := range calls {
						begin := time.Now()
						if got, want := call(t.Context(), s, d); !errors.Is(got, want) {
							t.Errorf("%s: %v, want %v", name, got, want)
						}
						if took := time.Since(begin); took > time.Second+slack {
							t.Errorf("%s took %s", name, took)
						}
					}
					// The next holder starts where this one was.
					next := accept(t, n.open(t), "s")
					if again := receive(t, next, 1)[0]; again.ID != "a" {
						t.Errorf("the next holder received %q first", again.ID)
					}
					if err := s.Close(t.Context()); err != nil {
						t.Errorf("Close: %v", err)
					}
				})
			})
		}
	}
}

// A renewal and a Receive meet dead links at once: the SDK attaches the session
// again for the one or for the other. That is a loss for both, and the session is
// not kept.
func TestSessionAttachedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := start(t, inMemory(), sbemulator.QueueOptions{RequiresSession: true, LockDuration: time.Minute})
		q := n.open(t)
		send(t, q, &driver.Message{ID: "a", SessionID: "s"})
		s := accept(t, q, "s")
		receive(t, s, 1)
		if _, err := s.RenewSession(t.Context()); err != nil {
			t.Fatalf("RenewSession: %v", err)
		}
		waiting := make(chan error, 1)
		go func() {
			_, err := s.Receive(t.Context(), 1, 10*time.Second)
			waiting <- err
		}()
		time.Sleep(newLock)
		if _, err := n.DetachLinks("q", "", ""); err != nil {
			t.Fatal(err)
		}
		if _, err := s.RenewSession(t.Context()); !errors.Is(err, driver.ErrSessionLost) {
			t.Errorf("RenewSession: %v", err)
		}
		if err := <-waiting; !errors.Is(err, driver.ErrSessionLost) {
			t.Errorf("Receive: %v", err)
		}
		if !eventually(5*time.Second, func() bool { st, err := n.Stats("q"); return err == nil && st.Sessions == 0 }) {
			t.Error("the session is held although it was lost")
		}
	})
}

// A session whose link is detached between two messages of one Receive is lost,
// too: for that Receive, or on a machine so busy that it no longer waited for the
// second, for the next.
func TestSessionLostWithinReceive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := start(t, inMemory(), sbemulator.QueueOptions{RequiresSession: true})
		q := n.open(t)
		send(t, q, &driver.Message{ID: "a", SessionID: "s"}, &driver.Message{ID: "b", SessionID: "s"})
		s := accept(t, q, "s")
		i := n.inject(t, sbemulator.Fault{On: sbemulator.OnDeliver, Action: sbemulator.Detach, Skip: 1, Times: 1})
		for i := range 3 {
			d, err := s.Receive(t.Context(), 10, 5*time.Second)
			if i == 0 && err == nil && len(d) == 1 && d[0].ID == "a" {
				continue
			}
			if !errors.Is(err, driver.ErrSessionLost) {
				t.Errorf("Receive: %d messages, %v", len(d), err)
			}
		}
		if i.Hits() != 1 {
			t.Errorf("%d detaches", i.Hits())
		}
		if !eventually(5*time.Second, func() bool { st, err := n.Stats("q"); return err == nil && st.Sessions == 0 }) {
			t.Error("the session is held although it was lost")
		}
	})
}

// Closing a queue gives up its sessions and what they hold.
func TestCloseGivesSessionsUp(t *testing.T) {
	bubbleUnless(t, fips140.Enforced(), func(t *testing.T, so *sbemulator.Options) {
		n := start(t, so, sbemulator.QueueOptions{RequiresSession: true})
		q := n.open(t)
		var held []driver.Session
		for i := range 3 {
			id := fmt.Sprint("s", i)
			send(t, q, &driver.Message{ID: id, SessionID: id})
			s := accept(t, q, id)
			receive(t, s, 1)
			held = append(held, s)
		}
		if err := q.Close(t.Context()); err != nil {
			t.Fatalf("Close: %v", err)
		}
		if !eventually(5*time.Second, func() bool {
			st, err := n.Stats("q")
			return err == nil && st.Sessions == 0 && st.Locked == 0 && st.Active == 3
		}) {
			st, err := n.Stats("q")
			t.Errorf("%+v, %v; want 3 active, and no session or lock", st, err)
		}
		for _, s := range held {
			if _, err := s.Receive(t.Context(), 1, 0); !errors.Is(err, driver.ErrClosed) {
				t.Errorf("Receive: %v", err)
			}
			if err := s.Close(t.Context()); err != nil {
				t.Errorf("Close: %v", err)
			}
		}
	})
}

// Accepting ends in time, even if the broker does not answer.
func TestAcceptEnds(t *testing.T) {
	t.Parallel()
	for _, silent := range []bool{false, true} {
		for _, id := range []string{"", "s"} {
			t.Run(fmt.Sprintf("%q %v", id, silent), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					n := start(t, inMemory(), sbemulator.QueueOptions{RequiresSession: true})
					q := n.openBuffered(t)
					if id != "" {
						accept(t, n.open(t), id)
					}
					if silent {
						n.inject(t, sbemulator.Fault{On: sbemulator.OnAttach, Delay: time.Minute})
					}
					begin := time.Now()
					_, err := q.AcceptSession(t.Context(), id, time.Second)
					if took := time.Since(begin); err == nil || took > 4*time.Second+slack {
						t.Errorf("after %s: %v", took, err)
					}
					want := driver.ErrNoSession
					if id != "" {
						want = driver.ErrSessionHeld
					}
					if !silent && !errors.Is(err, want) {
						t.Errorf("%v, want %v", err, want)
					}
				})
			})
		}
	}
}

// A Broker of many queues closes in time, even if the service does not answer.
func TestCloseBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := start(t, inMemory(), sbemulator.QueueOptions{})
		b := n.buffered(t)
		const queues = 5
		for i := range queues {
			name := fmt.Sprint("q", i)
			if err := n.CreateQueue(name, nil); err != nil {
				t.Fatal(err)
			}
			q, err := b.Open(t.Context(), name, nil)
			if err != nil {
				t.Fatal(err)
			}
			send(t, q, &driver.Message{ID: "a"})
			receive(t, q, 1)
		}
		n.inject(t, sbemulator.Fault{On: sbemulator.OnSettle, Delay: time.Minute})
		begin := time.Now()
		err := b.Close(t.Context())
		if took := time.Since(begin); took > 20*time.Second {
			t.Errorf("Close took %s: %v", took, err)
		}
	})
}
