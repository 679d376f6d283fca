package queue_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/replay"
)

// Session.Renew extends the claims of the messages in hand: a copy of one is busy for as
// long as the session is renewed, and no longer than the message is in hand.
func TestSessionRenewExtendsClaims(t *testing.T) {
	inHookedBubble(t, nil, func(x *fixture, store *hookedStore) {
		x.Send(&queue.Message{SessionID: "s", Body: []byte("a")})
		stolen := x.Steal()
		x.Send(&queue.Message{SessionID: "s", Body: []byte("b")})
		s, err := x.Receiver(orders, nil).AcceptSession(x.Context(), "s")
		x.Must(err)
		all, err := s.Receive(x.Context(), 2)
		x.Must(err)
		x.Must(all[1].Complete(x.Context()))
		renewed := 0
		store.renew = func(ctx context.Context, l []replay.Lease) ([]replay.Renewed, error) {
			renewed += len(l)
			return store.Store.Renew(ctx, orders, l)
		}
		for range 5 {
			x.Wait(20 * time.Second)
			x.Must(s.Renew(x.Context()))
		}
		if until := all[0].HeldUntil(); !until.Equal(s.LockedUntil()) || renewed != 5 {
			x.Errorf("held until %s and locked until %s, %d claims renewed, want the same and 5", until, s.LockedUntil(), renewed)
		}
		// The broker delivers a copy in another place.
		elsewhere := memqueue.New(nil)
		c, err := queue.New(elsewhere, &queue.Options{
			Keys: x.Ring, ReplayStore: x.Store, Logger: quiet(),
			Crypto: queue.CryptoConfig{Enabled: true, PlaintextPolicy: queue.Reject, TrackReplays: true, MaxMessageAge: time.Hour},
		})
		x.Must(err)
		defer func() { x.Must(c.Close(context.Background())) }()
		copies := x.receiverOf(c, nil)
		x.Must(elsewhere.Attacker().Rewrite(x.Context(), orders, func([]driver.Message) []driver.Message {
			return []driver.Message{stolen}
		}))
		other, err := copies.AcceptSession(x.Context(), "s")
		x.Must(err)
		if d, err := other.ReceiveOne(x.Context()); !errors.Is(err, queue.ErrNonceBusy) {
			x.Fatalf("the copy: %v, %v; want ErrNonceBusy", d, err)
		}
		x.Must(all[0].Complete(x.Context()))
		x.Must(s.Renew(x.Context()))
		if renewed != 5 {
			x.Error("the claim of a settled message was renewed")
		}
		x.Must(s.Close(x.Context()))
	})
}

// A store that does not answer a renewal is told to the caller, who may renew again.
func TestSessionRenewWithoutTheStore(t *testing.T) {
	inHookedBubble(t, nil, func(x *fixture, store *hookedStore) {
		x.Send(&queue.Message{SessionID: "s", Body: []byte("a")})
		s, err := x.Receiver(orders, nil).AcceptSession(x.Context(), "s")
		x.Must(err)
		d, err := s.ReceiveOne(x.Context())
		x.Must(err)
		before := s.LockedUntil()
		x.Wait(time.Second)
		store.renew = func(ctx context.Context, _ []replay.Lease) ([]replay.Renewed, error) { return nil, hang(ctx) }
		if err := s.Renew(x.Context()); !errors.Is(err, queue.ErrReplayStore) || !s.LockedUntil().After(before) {
			x.Errorf("Renew = %v, locked until %s and before %s; want ErrReplayStore and a later end", err, s.LockedUntil(), before)
		}
		store.renew = nil
		x.Must(s.Renew(x.Context()))
		x.Must(d.Complete(x.Context()))
		x.Must(s.Close(x.Context()))
	})
}

// Of the claims that are not renewed, a lost one is its message's affair. Any other error is
// told, however many others were renewed, and that of a caller that left as the caller's.
func TestSessionRenewInPart(t *testing.T) {
	inHookedBubble(t, nil, func(x *fixture, store *hookedStore) {
		for range 3 {
			x.Send(&queue.Message{SessionID: "s", Body: []byte("a")})
		}
		s := x.accept(x.Receiver(orders, nil))
		_, err := s.Receive(x.Context(), 3)
		x.Must(err)
		part := func(err error) func(context.Context, []replay.Lease) ([]replay.Renewed, error) {
			return func(_ context.Context, l []replay.Lease) ([]replay.Renewed, error) {
				r := make([]replay.Renewed, len(l))
				r[0].Err = err
				return r, nil
			}
		}
		store.renew = part(replay.ErrClaimLost)
		x.Must(s.Renew(x.Context()))
		store.renew = part(errFailing)
		x.failed("Renew", s.Renew(x.Context()), queue.ErrReplayStore, "renew session")
		store.renew = func(ctx context.Context, _ []replay.Lease) ([]replay.Renewed, error) { return nil, hang(ctx) }
		ctx, cancel := context.WithTimeout(x.Context(), time.Second)
		defer cancel()
		if err := s.Renew(ctx); !errors.Is(err, context.DeadlineExceeded) {
			x.Errorf("Renew of a caller that left: %v", err)
		}
		x.Must(s.Close(x.Context()))
	})
}

// A store that panics leaves the messages of a session to the next renewal.
func TestSessionRenewAfterAPanic(t *testing.T) {
	inHookedBubble(t, nil, func(x *fixture, store *hookedStore) {
		x.Send(&queue.Message{SessionID: "s", Body: []byte("a")})
		s := x.accept(x.Receiver(orders, nil))
		d, err := s.ReceiveOne(x.Context())
		x.Must(err)
		store.renew = func(context.Context, []replay.Lease) ([]replay.Renewed, error) { panic("a store's mistake") }
		func() {
			defer func() {
				if recover() == nil {
					x.Error("Renew: no panic")
				}
			}()
			_ = s.Renew(x.Context())
		}()
		store.renew = nil
		x.Wait(time.Second)
		x.Must(s.Renew(x.Context()))
		if !d.HeldUntil().Equal(s.LockedUntil()) {
			x.Errorf("held until %s, and the session until %s", d.HeldUntil(), s.LockedUntil())
		}
		x.Must(s.Close(x.Context()))
	})
}

// minRenewal is between two renewals of a session that is held, whatever the broker says.
const minRenewal = 100 * time.Millisecond

// TestHeldSessionOutlastsAFailedRenewal: one renewal that fails does not give back a session
// whose message waits: it would come again at once, and each time spend a delivery.
func TestHeldSessionOutlastsAFailedRenewal(t *testing.T) {
	for name, c := range map[string]struct {
		fails int // renewals in a row
		err   error
		lock  time.Duration // from a renewal on, by the broker's word; 0: 30 s
		least time.Duration // until the session is given back
		most  time.Duration
	}{
		"a passing failure":      {1, driver.Errorf(driver.Unavailable, "connection reset"), 0, 7 * time.Minute, 11 * time.Minute},
		"failures in a row":      {3, driver.Errorf(driver.Unavailable, "connection reset"), 0, 7 * time.Minute, 11 * time.Minute},
		"a broker that stays":    {1 << 30, driver.Errorf(driver.Unavailable, "connection reset"), 0, 30 * time.Second, 31 * time.Second},
		"a session that is lost": {1 << 30, driver.Errorf(driver.SessionLost, "gone"), 0, 15 * time.Second, 16 * time.Second},
		"locks of a millisecond": {0, nil, time.Millisecond, 7 * time.Minute, 11 * time.Minute},
	} {
		inBubble(t, func(_ *fixture, o *queue.Options) { o.Crypto.MaxMessageAge = 24 * time.Hour }, func(x *fixture) {
			x.Must(x.Ring.Add(newKey(x.T, "k2", 2)))
			x.Must(x.Ring.SetCurrent("k2"))
			x.Send(&queue.Message{SessionID: "s", Body: []byte("a")})
			p := &failingBroker{renewed: c.lock, caps: func(c *driver.Capabilities) { c.AbandonDelay = driver.None }}
			client := x.behind(p, func(o *queue.Options) {
				o.Keys, o.KeysFor = newRing(x.T, "k1"), nil
				o.Crypto.MaxMessageAge = 24 * time.Hour
			})
			// Of two deliveries the first waits for half of the horizon or more.
			s := x.accept(x.receives(client, &queue.ReceiverOptions{Wait: time.Second, MaxDeliveries: 2, RotationHorizon: 10 * time.Minute}))
			if _, err := s.ReceiveOne(x.Context()); !errors.Is(err, queue.ErrKeyNotFound) {
				x.Fatalf("%s: ReceiveOne = %v", name, err)
			}
			left := c.fails
			p.set(func() {
				p.fails = map[string]error{"renew session": c.err}
				p.hook = func(call string) {
					if call == "renew session" {
						p.set(func() {
							if left--; left < 0 {
								p.fails = nil
							}
						})
					}
				}
			})
			begin := time.Now()
			for p.count("close session") == 0 && time.Since(begin) < time.Hour {
				x.Wait(time.Second)
			}
			if took := time.Since(begin); took < c.least || took > c.most {
				x.Errorf("%s: the session is given back after %s, want %s to %s", name, took, c.least, c.most)
			}
			if n := p.count("renew session"); n > int(c.most/minRenewal) {
				x.Errorf("%s: %d renewals", name, n)
			}
		})
	}
}

// TestManyHeldSessions: a sender without a key makes as many sessions as it likes wait for one.
// Each that is held costs a link and renewals: beyond a bound their locks run out.
func TestManyHeldSessions(t *testing.T) {
	const bound, sessions = 1024, 1100
	inBubble(t, func(_ *fixture, o *queue.Options) { o.Crypto.MaxMessageAge = 24 * time.Hour }, func(x *fixture) {
		x.Must(x.Ring.Add(newKey(x.T, "k2", 2)))
		x.Must(x.Ring.SetCurrent("k2"))
		for i := range sessions {
			x.Send(&queue.Message{SessionID: fmt.Sprint(i), Body: []byte("a")})
		}
		p := &failingBroker{caps: func(c *driver.Capabilities) { c.AbandonDelay = driver.None }}
		client := x.behind(p, func(o *queue.Options) {
			o.Keys, o.KeysFor = newRing(x.T, "k1"), nil
			o.Logger, o.Crypto.MaxMessageAge = quiet(), 24*time.Hour
		})
		r := x.receives(client, &queue.ReceiverOptions{Wait: time.Second, MaxDeliveries: 2, RotationHorizon: 10 * time.Minute})
		hold := func(n int) {
			for range n {
				s, err := r.NextSession(x.Context())
				x.Must(err)
				if _, err := s.ReceiveOne(x.Context()); !errors.Is(err, queue.ErrKeyNotFound) {
					x.Fatalf("ReceiveOne = %v", err)
				}
			}
		}
		hold(sessions)
		x.Wait(31 * time.Second)
		if n := p.count("close session"); n != sessions-bound {
			x.Errorf("%d of %d sessions are given back when their first lock is over, want %d", n, sessions, sessions-bound)
		}
		x.Wait(time.Hour)
		if n := p.count("close session"); n != sessions {
			x.Errorf("%d of %d sessions are given back in the end", n, sessions)
		}
		x.Send(&queue.Message{SessionID: "later", Body: []byte("a")})
		for { // those that came again first
			s, err := r.NextSession(x.Context())
			x.Must(err)
			_, err = s.ReceiveOne(x.Context())
			if s.ID() == "later" {
				break
			}
			if err == nil {
				x.Fatal("a message under an unknown key was handed out")
			}
			x.Must(s.Close(x.Context()))
		}
		before := p.count("close session")
		x.Wait(2 * time.Minute)
		if n := p.count("close session"); n != before {
			x.Error("once those are given back, a session is not held any more")
		}
	})
}
