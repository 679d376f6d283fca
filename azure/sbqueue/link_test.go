package sbqueue_test

import (
	"context"
	"crypto/fips140"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/testbed/sbemulator"
)

// spins reports whether the SDK asks a management link that was detached with this condition
// again and again, without a pause, until it is closed (rpcLink.responseRouter).
func spins(condition string) bool {
	switch condition {
	case "com.microsoft:server-busy", "com.microsoft:timeout", "com.microsoft:operation-cancelled":
		return true
	}
	return false
}

// bubbleUnless runs f beside other tests in a bubble of testing/synctest. What makes time in a
// bubble stand still, or needs a clock that goes on, runs over real connections, before them.
func bubbleUnless(t *testing.T, realTime bool, f func(*testing.T, *sbemulator.Options)) {
	t.Helper()
	if realTime {
		f(t, nil)
		return
	}
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { f(t, inMemory()) })
}

// After a detach, whatever its condition, one failed call at most, and then all
// goes on. With several of these conditions the SDK would go on with the dead link
// for ever.
func TestDetached(t *testing.T) {
	for _, condition := range []string{
		"", "amqp:internal-error", "amqp:unauthorized-access", "amqp:resource-limit-exceeded", "amqp:not-allowed", "com.microsoft:server-busy",
		"com.microsoft:timeout", "com.microsoft:operation-cancelled", "com.microsoft:entity-disabled", "com.microsoft:auth-failed",
	} {
		t.Run(condition, func(t *testing.T) {
			bubbleUnless(t, spins(condition), func(t *testing.T, so *sbemulator.Options) {
				n := start(t, so, sbemulator.QueueOptions{})
				q := n.open(t)
				send(t, q, &driver.Message{ID: "held"}, &driver.Message{ID: "next"})
				held := receive(t, q, 1)[0]
				if err := q.Renew(t.Context(), []*driver.Delivery{held})[0].Err; err != nil {
					t.Fatalf("Renew: %v", err)
				}
				if links, err := n.DetachLinks("q", condition, "for a test"); err != nil || links < 6 {
					t.Fatalf("%d links detached, %v", links, err)
				}
				calls := map[string]func() error{
					"Send": func() error { return q.Send(t.Context(), []*driver.Message{{ID: "new"}})[0].Err },
					"Receive": func() error {
						wait := 5 * time.Second
						if so == nil {
							wait = time.Minute // of a machine that may be busy
						}
						d, err := q.Receive(t.Context(), 1, wait)
						if err == nil && len(d) == 0 {
							return errors.New("nothing came")
						}
						return err
					},
					"Renew": func() error { return q.Renew(t.Context(), []*driver.Delivery{held})[0].Err },
					"Peek":  func() error { _, _, err := q.Peek(t.Context(), "", 1); return err },
				}
				for name, call := range calls {
					first := call()
					if first == nil {
						continue
					}
					if err := call(); err != nil {
						t.Errorf("%s, again: %v; at first: %v", name, err, first)
					}
				}
				if took, err := settle(t, q, held, driver.Complete); err != nil || took > time.Second+slack {
					t.Errorf("Settle after %s: %v", took, err)
				}
			})
		})
	}
}

// A Receive that waits when its link is detached goes on waiting, and brings what
// comes then.
func TestReceiveOutlastsDetach(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := start(t, inMemory(), sbemulator.QueueOptions{})
		q, other := n.open(t), n.open(t)
		got := make(chan string, 1)
		go func() {
			d, err := q.Receive(t.Context(), 1, 20*time.Second)
			switch {
			case err != nil:
				got <- err.Error()
			case len(d) == 0:
				got <- "nothing"
			default:
				got <- d[0].ID
			}
		}()
		for i := range 2 {
			if !eventually(10*time.Second, func() bool { links, err := n.DetachLinks("q", "", ""); return err == nil && links > i }) {
				t.Fatal("there are no links")
			}
		}
		send(t, other, &driver.Message{ID: "late"})
		if id := <-got; id != "late" {
			t.Errorf("Receive: %s", id)
		}
	})
}

// Links that were idle for 10 minutes are detached; callers do not notice.
func TestIdleLinks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		so := inMemory()
		so.IdleLinkTimeout = 10 * time.Minute
		n := start(t, so, sbemulator.QueueOptions{})
		q := n.open(t)
		for round := range 3 {
			id := fmt.Sprint(round)
			send(t, q, &driver.Message{ID: id})
			d := receive(t, q, 1)[0]
			if err := q.Renew(t.Context(), []*driver.Delivery{d})[0].Err; err != nil {
				t.Fatalf("Renew: %v", err)
			}
			if _, _, err := q.Peek(t.Context(), "", 1); err != nil {
				t.Fatalf("Peek: %v", err)
			}
			if took, err := settle(t, q, d, driver.Complete); err != nil || took > 2*time.Second+slack {
				t.Fatalf("Settle after %s: %v", took, err)
			}
			if err := n.Advance(11 * time.Minute); err != nil {
				t.Fatal(err)
			}
		}
		if n.Connections() != 1 {
			t.Errorf("%d connections for the queues of one Broker", n.Connections())
		}
	})
}

// What is held when the connection is lost is settled over the next one.
func TestSettleAfterDrop(t *testing.T) {
	t.Parallel()
	for kind, want := range map[driver.SettleKind]sbemulator.Stats{
		driver.Complete: {}, driver.Abandon: {Active: 1}, driver.MoveToDeadLetter: {DeadLetters: 1},
	} {
		t.Run(kind.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n := start(t, inMemory(), sbemulator.QueueOptions{})
				q := n.open(t)
				send(t, q, &driver.Message{ID: "a"})
				d := receive(t, q, 1)[0]
				n.DropConnections()
				if took, err := settle(t, q, d, kind); err != nil || took > 10*time.Second {
					t.Errorf("Settle after %s: %v", took, err)
				}
				st, err := n.Stats("q")
				if st.Bytes = 0; err != nil || st != want {
					t.Errorf("%+v, %v, want %+v", st, err, want)
				}
				if _, err := settle(t, q, d, kind); !errors.Is(err, driver.ErrSettled) {
					t.Errorf("Settle again: %v", err)
				}
			})
		})
	}
}

// Settling ends in 10 s, or with the caller's context, whatever the broker does.
func TestSettleBounded(t *testing.T) {
	t.Parallel()
	for name, hinder := range map[string]func(*namespace, *testing.T){
		"gone": func(n *namespace, t *testing.T) { _ = n.Close() },
		"silent": func(n *namespace, t *testing.T) {
			n.inject(t, sbemulator.Fault{On: sbemulator.OnSettle, Delay: time.Minute})
			n.inject(t, sbemulator.Fault{On: sbemulator.OnManage, Delay: time.Minute}) // a new connection has no better luck
		},
		"cut each time": func(n *namespace, t *testing.T) {
			n.inject(t, sbemulator.Fault{On: sbemulator.OnSettle, Action: sbemulator.Drop})
			n.inject(t, sbemulator.Fault{On: sbemulator.OnManage, Action: sbemulator.Drop})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n := start(t, inMemory(), sbemulator.QueueOptions{})
				q := n.openBuffered(t)
				const many = 50 // three times what is settled at once
				for i := range many + 2 {
					send(t, q, &driver.Message{ID: fmt.Sprint(i)})
				}
				d := receive(t, q, many+2)
				hinder(n, t)
				ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
				defer cancel()
				begin := time.Now()
				err := q.Settle(ctx, []driver.Settlement{{Delivery: d[0], Kind: driver.Complete}})[0]
				if took := time.Since(begin); !errors.Is(err, context.DeadlineExceeded) || took > 2*time.Second+slack {
					t.Errorf("with a context of 300 ms, after %s: %v", took, err)
				}
				took, err := settle(t, q, d[1], driver.Complete)
				var e *driver.Error
				if took > 10*time.Second || !errors.As(err, &e) || !e.Transient() {
					t.Errorf("Settle after %s: %v", took, err)
				}
				all := make([]driver.Settlement, many)
				for i := range all {
					all[i] = driver.Settlement{Delivery: d[i+2], Kind: driver.Complete}
				}
				begin = time.Now()
				errs := q.Settle(t.Context(), all)
				if took := time.Since(begin); took > 10*time.Second || slices.Contains(errs, nil) {
					t.Errorf("Settle of %d after %s: %v", many, took, errs)
				}
			})
		})
	}
}

// A delivery whose message another receiver holds by now settles nothing, over the
// old connection or a new one.
func TestSettleOthers(t *testing.T) {
	t.Parallel()
	for _, drop := range []bool{false, true} {
		for _, kind := range []driver.SettleKind{driver.Complete, driver.Abandon, driver.MoveToDeadLetter} {
			t.Run(fmt.Sprint(kind, drop), func(t *testing.T) {
				bubbleUnless(t, fips140.Enforced(), func(t *testing.T, so *sbemulator.Options) {
					n := start(t, so, sbemulator.QueueOptions{})
					q, other := n.open(t), n.open(t)
					send(t, q, &driver.Message{ID: "a"})
					d := receive(t, q, 1)[0]
					stored, err := n.Messages("q")
					if err != nil || len(stored) != 1 {
						t.Fatalf("%d messages, %v", len(stored), err)
					}
					if drop {
						n.DropConnections()
					}
					if err := n.ExpireLock("q", stored[0].SequenceNumber); err != nil {
						t.Fatal(err)
					}
					theirs := receive(t, other, 1)[0]
					for range 2 { // the SDK takes what was answered for settled
						if took, err := settle(t, q, d, kind); !errors.Is(err, driver.ErrLockLost) || took > 10*time.Second {
							t.Errorf("Settle after %s: %v", took, err)
						}
					}
					if err := q.Renew(t.Context(), []*driver.Delivery{d})[0].Err; !errors.Is(err, driver.ErrLockLost) {
						t.Errorf("Renew: %v", err)
					}
					if _, err := settle(t, other, theirs, driver.Complete); err != nil {
						t.Errorf("the holder's Settle: %v", err)
					}
				})
			})
		}
	}
}

// What the SDK asked for and a Receive did not take is free for others.
func TestCredit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := start(t, inMemory(), sbemulator.QueueOptions{LockDuration: time.Minute})
		q, other := n.open(t), n.open(t)
		send(t, q, &driver.Message{ID: "a"})
		if d := receive(t, q, 1); len(d) != 1 {
			t.Fatal(len(d))
		}
		if d, err := q.Receive(t.Context(), 10, 0); len(d) != 0 || err != nil {
			t.Fatalf("%d, %v", len(d), err)
		}
		for i := range 5 {
			send(t, other, &driver.Message{ID: fmt.Sprint(i)})
		}
		receive(t, other, 5)
		if st, err := n.Stats("q"); err != nil || st.Locked != 6 {
			t.Errorf("%+v, %v; want 6 locked", st, err)
		}
	})
}

// The limit is the link's.
func TestLimit(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{256 << 10, 1 << 20} {
		n := start(t, nil, sbemulator.QueueOptions{MaxMessageSize: limit})
		q := n.open(t)
		c := q.Capabilities()
		if c.MaxBatchBytes > limit || c.MaxBatchBytes < limit-1024 || c.MaxBody < limit-18<<10 {
			t.Errorf("with %d: %d a transfer, %d a body", limit, c.MaxBatchBytes, c.MaxBody)
		}
		send(t, q, &driver.Message{ID: "largest", Body: make([]byte, c.MaxBody)})
		r := q.Send(t.Context(), []*driver.Message{{ID: "larger", Body: make([]byte, c.MaxBody+1)}})
		if !errors.Is(r[0].Err, driver.ErrTooLarge) {
			t.Errorf("one more: %v", r[0].Err)
		}
	}
}

// TestSendIntoSilence: over a network that has fallen silent Send ends within the time
// that settling has, with an error that is transient, and as often as it is tried.
func TestSendIntoSilence(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := start(t, inMemory(), sbemulator.QueueOptions{})
		r := n.relayed(t, nil)
		q, err := r.broker(t, n, nil).Open(t.Context(), "q", nil)
		if err != nil {
			t.Fatal(err)
		}
		send(t, q, &driver.Message{ID: "a"})
		r.silence()
		begin := time.Now()
		err = q.Send(context.Background(), []*driver.Message{{ID: "b"}})[0].Err
		if took := time.Since(begin); driver.KindOf(err) != driver.Unavailable || took > 12*time.Second {
			t.Errorf("Send into a silent network: %v after %s, want Unavailable within 12 s", err, took)
		}
		// The SDK takes a minute to find out that its connection is dead.
		begin = time.Now()
		err = q.Send(context.Background(), []*driver.Message{{ID: "c"}})[0].Err
		if took := time.Since(begin); err != nil || took > 5*time.Second {
			t.Errorf("Send after a silent connection: %v after %s, want a new connection at once", err, took)
		}
	})
}

// TestSilentConnectionIsReplaced: when nothing is answered any more, what is held is
// settled over a new connection, and what waits for messages goes on there.
func TestSilentConnectionIsReplaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := start(t, inMemory(), sbemulator.QueueOptions{LockDuration: time.Minute})
		r := n.relayed(t, nil)
		q, err := r.broker(t, n, nil).Open(t.Context(), "q", nil)
		if err != nil {
			t.Fatal(err)
		}
		send(t, q, &driver.Message{ID: "held"})
		d := receive(t, q, 1)[0]
		waiting := make(chan error, 1)
		go func() {
			more, err := q.Receive(t.Context(), 1, time.Minute)
			if err == nil && (len(more) != 1 || more[0].ID != "next") {
				err = fmt.Errorf("received %d messages", len(more))
			}
			waiting <- err
		}()
		r.silence()
		begin := time.Now()
		for {
			_, err := settle(t, q, d, driver.Complete)
			took := time.Since(begin)
			if err == nil || errors.Is(err, driver.ErrSettled) {
				break
			}
			if driver.KindOf(err) != driver.Unavailable || took > 20*time.Second {
				t.Fatalf("settling over a silent connection: %v after %s, want success within 20 s", err, took)
			}
			time.Sleep(callerPause)
		}
		send(t, n.open(t), &driver.Message{ID: "next"})
		if err := <-waiting; err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took > 30*time.Second {
			t.Errorf("a Receive that waited went on after %s, want 30 s at the most", took)
		}
	})
}
