package queue_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/internal/fixturetest"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/replay"
)

// The walk-throughs of redelivery and replay: what must pass, and what must not.

func TestRedeliveryAfterAbandon(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{Body: []byte("a")})
		r := x.Receiver(orders, nil)
		for i := 1; i <= 3; i++ {
			d := x.One(r)
			if d.Count != i {
				x.Errorf("Count = %d, want %d", d.Count, i)
			}
			x.Must(d.Abandon(x.Context(), 0))
		}
		x.Must(x.One(r).Complete(x.Context()))
		x.None(r, queue.ErrNoMessage)
	})
}

func TestRedeliveryWhileFirstHandlerStillRuns(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{Body: []byte("a")})
		r := x.Receiver(orders, nil)
		first := x.One(r)
		x.Wait(31 * time.Second) // the lock, and with it the claim, runs out
		second := x.One(r)
		if second.Count != 2 {
			x.Errorf("Count = %d, want 2", second.Count)
		}
		// The first holder is late: it must neither complete nor release what
		// the second holds.
		if err := first.Complete(x.Context()); !errors.Is(err, queue.ErrLockLost) {
			x.Errorf("late Complete: %v, want ErrLockLost", err)
		}
		if err := first.Abandon(x.Context(), 0); !errors.Is(err, queue.ErrLockLost) {
			x.Errorf("late Abandon: %v, want ErrLockLost", err)
		}
		x.None(r, queue.ErrNoMessage)
		x.Must(second.Complete(x.Context()))
		x.None(r, queue.ErrNoMessage)
	})
}

// A late release in the store itself: the claim of the second holder survives
// it, shown by a copy that is still busy.
func TestLateReleaseDoesNotFreeAnothersClaim(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{Body: []byte("a")})
		stolen := x.Steal()
		r := x.Receiver(orders, nil)
		first := x.One(r)
		x.Wait(31 * time.Second)
		second := x.One(r)
		if err := first.Abandon(x.Context(), 0); !errors.Is(err, queue.ErrLockLost) {
			x.Errorf("late Abandon: %v, want ErrLockLost", err)
		}
		x.Inject(orders, stolen)
		x.None(r, queue.ErrNonceBusy)
		x.Must(second.Complete(x.Context()))
	})
}

func TestCopyWhileFirstIsInFlight(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{Body: []byte("a")})
		stolen := x.Steal()
		r := x.Receiver(orders, nil)
		d := x.One(r)
		x.Inject(orders, stolen)
		rejected := x.None(r, queue.ErrNonceBusy)
		if rejected.Disposition != driver.Abandoned || rejected.Delay <= 0 || rejected.Reason != "nonce_busy" {
			x.Errorf("%+v, want abandoned with a delay", rejected)
		}
		x.Must(d.Complete(x.Context()))
		x.Wait(time.Minute)
		x.None(r, queue.ErrNoMessage) // the copy says nothing new: it is completed
		if waiting, dead := len(x.Stored(orders)), x.DeadReasons(orders); waiting > 0 || len(dead) > 0 {
			x.Errorf("%d waiting, dead letters %v; want none", waiting, dead)
		}
	})
}

func TestReplayAfterCompletion(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{Body: []byte("a")})
		stolen := x.Steal()
		r := x.Receiver(orders, nil)
		x.Must(x.One(r).Complete(x.Context()))
		x.Inject(orders, stolen)
		x.None(r, queue.ErrNoMessage) // completed: it says nothing new
		x.Wait(time.Hour)             // its tag is forgotten, its number is not
		x.Inject(orders, stolen)
		x.None(r, queue.ErrNonceReused)
	})
}

func TestReplayUntracked(t *testing.T) {
	untracked := func(_ *fixture, o *queue.Options) { o.Crypto.TrackReplays = false }
	inBubble(t, untracked, func(x *fixture) {
		x.Send(&queue.Message{Body: []byte("a")})
		stolen := x.Steal()
		r := x.Receiver(orders, nil)
		x.Must(x.One(r).Complete(x.Context()))
		x.Inject(orders, stolen)
		x.Must(x.One(r).Complete(x.Context())) // within the window: documented
		x.Wait(6 * time.Minute)
		x.Inject(orders, stolen)
		x.None(r, queue.ErrMessageExpired)
	})
}

// A crash before the consumed mark repeats the handler.
func TestCrashBeforeConsumedMark(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{Body: []byte("a")})
		r := x.Receiver(orders, nil)
		x.One(r) // and never heard of again
		x.Wait(31 * time.Second)
		d := x.One(r)
		if d.Count != 2 {
			x.Errorf("Count = %d, want 2", d.Count)
		}
		x.Must(d.Complete(x.Context()))
	})
}

// A crash between the consumed mark and the broker's completion: the handler had
// finished, so the redelivery is completed and not handled again.
func TestCrashAfterConsumedMark(t *testing.T) {
	var faults *fixturetest.FaultyBroker
	lost := func(x *fixture, o *queue.Options) {}
	inBubble(t, lost, func(x *fixture) {
		x.Send(&queue.Message{ID: "m", Body: []byte("a")})
		faults = &fixturetest.FaultyBroker{Broker: x.Broker}
		c, err := queue.New(faults, &queue.Options{
			Keys: x.Ring, ReplayStore: x.Store, Logger: quiet(),
			Crypto: queue.CryptoConfig{Enabled: true, TrackReplays: true},
		})
		x.Must(err)
		r, err := c.Receiver(x.Context(), orders, &queue.ReceiverOptions{Wait: time.Second})
		x.Must(err)
		d := x.One(r)
		faults.FailSettle(driver.Errorf(driver.Unavailable, "connection reset"))
		if err := d.Complete(x.Context()); !errors.Is(err, queue.ErrUnavailable) {
			x.Fatalf("Complete: %v, want ErrUnavailable", err)
		}
		faults.FailSettle(nil)
		x.Wait(31 * time.Second)
		x.None(r, queue.ErrNoMessage) // completed silently
		if n := len(x.Stored(orders)); n != 0 {
			x.Errorf("%d messages are left, want none", n)
		}
		if n := len(x.DeadReasons(orders)); n != 0 {
			x.Errorf("%d dead letters, want none", n)
		}
	})
}

// The replay store fails at each step.
func TestReplayStoreFails(t *testing.T) {
	failing := func(x *fixture, o *queue.Options) {
		x.Store = &faultyStore{Store: x.Store}
		o.ReplayStore = x.Store
	}
	down := errors.New("connection refused")

	t.Run("Begin", func(t *testing.T) {
		inBubble(t, failing, func(x *fixture) {
			store := x.Store.(*faultyStore)
			x.Send(&queue.Message{Body: []byte("a")})
			r := x.Receiver(orders, nil)
			store.set(down)
			rejected := x.None(r, queue.ErrReplayStore)
			if rejected.Disposition != driver.Released {
				x.Errorf("disposition %s, want released", rejected.Disposition)
			}
			// Fetching stops: no delivery is spent while the store is away.
			for range 200 {
				ds, err := r.Receive(x.Context(), 10)
				x.Nothing(ds, err, queue.ErrReplayStore)
			}
			store.set(nil)
			var d *queue.Delivery
			for range 60 {
				if ds, _ := r.Receive(x.Context(), 1); len(ds) == 1 {
					d = ds[0]
					break
				}
			}
			if d == nil {
				x.Fatal("receiving did not resume")
			}
			if d.Count != 1 {
				x.Errorf("Count = %d after an outage of 200 s, want 1", d.Count)
			}
			x.Must(d.Complete(x.Context()))
			if n := len(x.DeadReasons(orders)); n != 0 {
				x.Errorf("%d dead letters, want none", n)
			}
		})
	})
	t.Run("Consume", func(t *testing.T) {
		inBubble(t, failing, func(x *fixture) {
			store := x.Store.(*faultyStore)
			x.Send(&queue.Message{Body: []byte("a")})
			d := x.One(x.Receiver(orders, nil))
			store.set(down)
			if err := d.Complete(x.Context()); !errors.Is(err, queue.ErrReplayStore) {
				x.Fatalf("Complete: %v, want ErrReplayStore", err)
			}
			store.set(nil)
			x.Must(d.Complete(x.Context())) // the broker was not told, so it can be repeated
		})
	})
	t.Run("Release", func(t *testing.T) {
		inBubble(t, failing, func(x *fixture) {
			store := x.Store.(*faultyStore)
			x.Send(&queue.Message{Body: []byte("a")})
			r := x.Receiver(orders, nil)
			d := x.One(r)
			store.set(down)
			x.Must(d.Abandon(x.Context(), 0))
			store.set(nil)
			x.None(r, queue.ErrNonceBusy) // until the lease ends
			x.Wait(31 * time.Second)
			x.Must(x.One(r).Complete(x.Context()))
		})
	})
	t.Run("Renew", func(t *testing.T) {
		inBubble(t, failing, func(x *fixture) {
			store := x.Store.(*faultyStore)
			x.Send(&queue.Message{Body: []byte("a")})
			d := x.One(x.Receiver(orders, nil))
			before := d.HeldUntil()
			x.Wait(10 * time.Second)
			store.set(down)
			if err := d.Renew(x.Context()); !errors.Is(err, queue.ErrReplayStore) {
				x.Fatalf("Renew: %v, want ErrReplayStore", err)
			}
			if !d.HeldUntil().Equal(before) {
				x.Error("LockedUntil moved although the claim was not renewed")
			}
			store.set(nil)
			x.Must(d.Renew(x.Context()))
			if !d.HeldUntil().After(before) {
				x.Error("LockedUntil did not move")
			}
			x.Must(d.Complete(x.Context()))
		})
	})
	t.Run("full", func(t *testing.T) {
		inBubble(t, failing, func(x *fixture) {
			store := x.Store.(*faultyStore)
			x.Send(&queue.Message{Body: []byte("a")})
			r := x.Receiver(orders, nil)
			store.set(replay.ErrFull)
			rejected := x.None(r, queue.ErrReplayStore)
			if !errors.Is(rejected, replay.ErrFull) || rejected.Disposition != driver.Released {
				x.Errorf("%v (%s), want ErrFull, released", rejected.Err, rejected.Disposition)
			}
			store.set(nil)
			x.Wait(time.Minute)
			x.Must(x.One(r).Complete(x.Context()))
		})
	})
}

func TestClocksApart(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		r := x.Receiver(orders, nil)
		now := time.Now()
		x.Inject(orders, x.sealed("ahead", now.Add(29*time.Second), time.Time{}))
		x.Must(x.One(r).Complete(x.Context())) // within the skew
		x.Inject(orders, x.sealed("behind", now.Add(-5*time.Minute-29*time.Second), time.Time{}))
		x.Must(x.One(r).Complete(x.Context()))
		x.Inject(orders, x.sealed("old", now.Add(-5*time.Minute-31*time.Second), time.Time{}))
		x.None(r, queue.ErrMessageExpired)
		// A clock that is wrong by more must not dead-letter: it waits.
		x.Inject(orders, x.sealed("future", now.Add(2*time.Minute), time.Time{}))
		rejected := x.None(r, queue.ErrMessageFromFuture)
		if rejected.Disposition != driver.Released || rejected.Delay < time.Minute {
			x.Errorf("%s after %s, want released until it is due", rejected.Disposition, rejected.Delay)
		}
		x.Wait(2 * time.Minute)
		x.Must(x.One(r).Complete(x.Context()))
	})
}

func TestBacklogOlderThanMaxMessageAge(t *testing.T) {
	tracked := func(on bool) func(*fixture, *queue.Options) {
		return func(_ *fixture, o *queue.Options) { o.Crypto.TrackReplays = on }
	}
	for _, on := range []bool{true, false} {
		t.Run(map[bool]string{true: "tracked", false: "untracked"}[on], func(t *testing.T) {
			inBubble(t, tracked(on), func(x *fixture) {
				r := x.Receiver(orders, nil)
				// Never seen while it was fresh: expired in both cases.
				x.Send(&queue.Message{Body: []byte("a"), TTL: time.Hour})
				x.Wait(6 * time.Minute)
				rejected := x.None(r, queue.ErrMessageExpired)
				var expired *queue.ExpiredError
				if !errors.As(rejected, &expired) || expired.MaxAge != 5*time.Minute || !expired.ExpiresAt.IsZero() {
					x.Errorf("%v, want an ExpiredError with the maximum age", rejected.Err)
				}
				// Seen fresh, then retried late: its retries are exempt when tracked.
				x.Send(&queue.Message{Body: []byte("b")})
				x.Must(x.One(r).Abandon(x.Context(), 20*time.Minute))
				x.Wait(20 * time.Minute)
				if on {
					x.Must(x.One(r).Abandon(x.Context(), 0))
					x.Wait(24 * time.Hour) // past the retry window
				}
				x.None(r, queue.ErrMessageExpired)
			})
		})
	}
}

func TestScheduledMessage(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		r := x.Receiver(orders, nil)
		due := time.Now().Add(time.Hour)
		x.Send(&queue.Message{Body: []byte("a"), NotBefore: due, TTL: 10 * time.Minute})
		x.None(r, queue.ErrNoMessage)
		// The broker delivers it early: it waits.
		x.Rewrite(orders, func(m []driver.Message) []driver.Message {
			for i := range m {
				m[i].NotBefore = time.Time{}
			}
			return m
		})
		x.None(r, queue.ErrMessageFromFuture)
		x.Wait(time.Until(due))
		d := x.One(r)
		if !d.NotBefore.Equal(due.Truncate(time.Millisecond)) || d.TTL != 10*time.Minute {
			x.Errorf("NotBefore %s, TTL %s; want %s, 10m", d.NotBefore, d.TTL, due)
		}
		x.Must(d.Complete(x.Context()))
	})
}

// A TTL is enforced whatever the broker does, and also on retries.
func TestTTL(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{Body: []byte("a"), TTL: 2 * time.Minute})
		stolen := x.Steal()
		r := x.Receiver(orders, nil)
		x.Must(x.One(r).Abandon(x.Context(), 0))
		x.Wait(3 * time.Minute)
		x.Rewrite(orders, func([]driver.Message) []driver.Message { return nil })
		stolen.TTL = 0
		x.Inject(orders, stolen)
		rejected := x.None(r, queue.ErrMessageExpired)
		if !strings.Contains(rejected.Error(), "to live until") {
			x.Errorf("%v does not name the expiry", rejected)
		}
	})
}

// sealed returns a message as a sender with another clock would have sealed it.
func (x *fixture) sealed(id string, at, notBefore time.Time) driver.Message {
	x.Helper()
	key, err := x.Ring.GetKey(x.Context(), "k1")
	x.Must(err)
	s, err := envelope.NewSealer(key, "k1", "")
	x.Must(err)
	h := envelope.Header{EncryptedAt: at.UnixMilli(), Sequence: 1, Origin: orders}
	_, _ = rand.Read(h.Stream[:]) // a sender for each message
	if !notBefore.IsZero() {
		h.NotBefore = notBefore.UnixMilli()
	}
	data, err := envelope.AppendContext(nil, &envelope.Context{MessageID: id}, nil)
	x.Must(err)
	body, err := s.Seal(nil, &h, []byte(id), data)
	x.Must(err)
	return driver.Message{ID: id, Body: body, Sealed: true}
}

// Ring.Remove while seals are under way: each either fails or opens under the
// key; never is anything sealed under zeroes.
func TestRemoveWhileSealing(t *testing.T) {
	for range 20 {
		ring := newRing(t, "k1", "k2")
		spare := newRing(t, "k1") // the same bytes, kept
		crypto, err := queue.NewAESGCM(ring)
		if err != nil {
			t.Fatal(err)
		}
		check, err := queue.NewAESGCM(spare)
		if err != nil {
			t.Fatal(err)
		}
		started, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for i := 0; ; i++ {
				if i == 10 {
					close(started)
				}
				m, err := crypto.Encrypt(context.Background(), "k1", envelope.Header{EncryptedAt: 1, Sequence: 1, Origin: orders}, []byte("secret"), nil)
				if err != nil {
					if !errors.Is(err, keys.ErrNotFound) && !errors.Is(err, keys.ErrDestroyed) {
						t.Errorf("Encrypt: %v", err)
					}
					return
				}
				if _, err := check.Decrypt(context.Background(), m, nil); err != nil {
					t.Errorf("sealed under something that is not the key: %v", err)
					return
				}
			}
		}()
		<-started
		if err := ring.SetCurrent("k2"); err != nil {
			t.Error(err)
		}
		if err := ring.Remove("k1"); err != nil {
			t.Error(err)
		}
		<-done
	}
}

// strict opens a client under Strict over a broker that names a retention, as a service
// that starts anew, with its receiver and sender.
func (x *fixture) strict(retention time.Duration) (*queue.Client, *queue.Receiver, *queue.Sender) {
	x.Helper()
	h := &hostileBroker{Broker: x.Broker.Connect(), caps: func(c *driver.Capabilities) { c.Retention = retention }}
	o := queue.Strict(x.Ring, x.Store)
	o.Logger = quiet()
	c, err := queue.New(h, o)
	x.Must(err)
	s, err := c.Sender(x.Context(), orders, nil)
	x.Must(err)
	return c, x.receiverOf(c, nil), s
}

// The broker's word about its retention replays nothing: not what the store remembers, and
// not what it forgot, because the mark of the group stays.
func TestRetentionThatGrows(t *testing.T) {
	for _, later := range []time.Duration{time.Hour, 6 * 24 * time.Hour, 13 * 24 * time.Hour, 200 * 24 * time.Hour} {
		t.Run(later.String(), func(t *testing.T) {
			inBubble(t, nil, func(x *fixture) {
				c, r, s := x.strict(4 * 24 * time.Hour)
				_, err := s.Send(x.Context(), &queue.Message{ID: "pay-1", Body: []byte("pay 100")})
				x.Must(err)
				stolen := x.Steal()
				x.Must(x.One(r).Complete(x.Context()))
				x.Must(c.Close(x.Context()))
				x.Wait(later)
				c, r, s = x.strict(40 * 365 * 24 * time.Hour) // the attacker's word
				_, err = s.Send(x.Context(), &queue.Message{ID: "other", Body: []byte("a")})
				x.Must(err)
				x.Must(x.One(r).Complete(x.Context()))
				x.Inject(orders, copyMessage(stolen))
				if d, err := r.ReceiveOne(x.Context()); err == nil {
					x.Errorf("handled again %s later: %q", later, d.Body)
				}
				x.Must(c.Close(x.Context()))
			})
		})
	}
}

// A broker that names a retention of a second, or one that makes no sense, has nothing
// dead-lettered: no limit falls below that without Strict.
func TestRetentionTooShort(t *testing.T) {
	for name, word := range map[string]time.Duration{"one second": time.Second, "below zero": -time.Second, "51 years": 51 * 365 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(x *fixture) {
				h := &hostileBroker{Broker: x.Broker.Connect(), caps: func(c *driver.Capabilities) { c.Retention = word }}
				o := queue.Strict(x.Ring, x.Store)
				o.Logger = quiet()
				c, err := queue.New(h, o)
				x.Must(err)
				x.Send(&queue.Message{Body: []byte("x")})
				r, err := c.Receiver(x.Context(), orders, &queue.ReceiverOptions{Wait: time.Second})
				if word <= 0 {
					if !errors.Is(err, queue.ErrInvalidOptions) {
						x.Errorf("Receiver = %v, want ErrInvalidOptions", err)
					}
					x.Must(c.Close(x.Context()))
					return
				}
				x.Must(err)
				x.Wait(2 * time.Minute)
				x.Must(x.One(r).Complete(x.Context()))
				x.Must(c.Close(x.Context()))
			})
		})
	}
}

// A receiver of the group that raises MaxMessageAge, as in a rolling deployment, handles
// nothing again that the others completed.
func TestRaisingMaxMessageAge(t *testing.T) {
	for _, later := range []time.Duration{11 * time.Minute, 23 * time.Hour, 20 * 24 * time.Hour} {
		t.Run(later.String(), func(t *testing.T) {
			inBubble(t, nil, func(x *fixture) {
				x.Send(&queue.Message{ID: "pay-1", Body: []byte("pay 100")})
				stolen := x.Steal()
				x.Must(x.One(x.Receiver(orders, nil)).Complete(x.Context()))
				x.Wait(later)
				raised := &queue.CryptoConfig{Enabled: true, PlaintextPolicy: queue.Reject, TrackReplays: true, MaxMessageAge: 30 * 24 * time.Hour}
				r := x.Receiver(orders, &queue.ReceiverOptions{Wait: time.Second, Crypto: raised})
				x.Inject(orders, copyMessage(stolen))
				if d, err := r.ReceiveOne(x.Context()); err == nil {
					x.Errorf("completed %s ago, handled again: %q", later, d.Body)
				}
			})
		})
	}
}

// A key for one queue forges nothing for another, although one ring serves both.
func TestKeyOfAnotherQueue(t *testing.T) {
	inBubble(t, func(x *fixture, o *queue.Options) {
		x.Ring = &keys.Ring{}
		for i, id := range []keys.ID{"key-a", "key-b"} {
			k, err := keys.New(id, bytes.Repeat([]byte{byte(i + 1)}, keys.Size), &keys.Options{Queues: []string{[]string{orders, "invoices"}[i]}})
			x.Must(err)
			x.Must(x.Ring.Add(k))
		}
		x.Must(x.Ring.SetCurrent("key-a"))
		o.Keys = x.Ring
	}, func(x *fixture) {
		stolen, err := keys.NewRing(newKey(x.T, "key-b", 2)) // all that the attacker has; without its queues
		x.Must(err)
		c, err := queue.New(x.Broker.Connect(), &queue.Options{Keys: stolen, Crypto: queue.CryptoConfig{Enabled: true}, Logger: quiet()})
		x.Must(err)
		r := x.Receiver(orders, nil)
		s, err := c.Sender(x.Context(), orders, nil)
		x.Must(err)
		_, err = s.Send(x.Context(), &queue.Message{ID: "forged", Body: []byte("forged")})
		x.Must(err)
		x.None(r, queue.ErrAuthenticationFailed)
		x.Must(c.Close(x.Context()))
	})
}

// One sender, or all of one queue, cannot fill the store that queues share: others go on.
func TestOneQueueDoesNotFillTheStore(t *testing.T) {
	inBubble(t, func(x *fixture, o *queue.Options) {
		q := replay.Quota{Records: 100, Streams: 100, Intervals: 100}
		store, err := replay.NewMemory(&replay.MemoryOptions{Bounds: replay.Bounds{Store: q}})
		x.Must(err)
		x.Store, o.ReplayStore = store, store
	}, func(x *fixture) {
		flooded := x.Receiver("other", nil)
		for range 200 { // of a sender that was taken over; its messages are kept
			_, err := x.Sender("other").Send(x.Context(), &queue.Message{Body: []byte("x")})
			x.Must(err)
			_, _ = flooded.ReceiveOne(x.Context())
		}
		x.Send(&queue.Message{Body: []byte("innocent")})
		x.Must(x.One(x.Receiver(orders, nil)).Complete(x.Context()))
	})
}
