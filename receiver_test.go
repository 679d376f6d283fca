package queue_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/fixturetest"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/replay"
)

// interruptedStore ends the caller's context during a claim.
type interruptedStore struct {
	replay.Store
	end  context.CancelFunc
	fail error // instead of a claim; nil: the claim is granted all the same
}

func (s *interruptedStore) Begin(ctx context.Context, group string, r []replay.Request) ([]replay.Claim, error) {
	if s.end != nil {
		s.end()
		s.end = nil
		if errors.Is(s.fail, replay.ErrBusy) {
			return []replay.Claim{{Err: s.fail, BusyUntil: time.Now().Add(30 * time.Second)}}, nil
		}
		if s.fail != nil {
			return nil, s.fail
		}
	}
	return s.Store.Begin(ctx, group, r)
}

// A caller that goes away while its messages are looked at leaves none of them
// behind, locked or claimed: the next receiver has them at once.
func TestReceiveInterrupted(t *testing.T) {
	for what, fail := range map[string]error{
		"before the claim": errors.New("connection reset"),
		"busy":             replay.ErrBusy,
		"after the claim":  nil,
	} {
		t.Run(what, func(t *testing.T) {
			var store *interruptedStore
			change := func(x *fixture, o *queue.Options) {
				store = &interruptedStore{Store: x.Store, fail: fail}
				o.ReplayStore = store
			}
			inBubble(t, change, func(x *fixture) {
				x.Send(&queue.Message{Body: []byte("a")})
				r := x.Receiver(orders, nil)
				ctx, cancel := context.WithCancel(x.Context())
				store.end = cancel
				if got, err := r.Receive(ctx, 1); !errors.Is(err, context.Canceled) || len(got) != 0 {
					x.Fatalf("Receive = %d, %v; want the context's error", len(got), err)
				}
				want := 1 // no handler saw it: the delivery does not count
				if errors.Is(fail, replay.ErrBusy) {
					x.Wait(30 * time.Second) // a rejection, with its delay
					want = 2
				}
				d := x.One(r)
				if d.Count != want {
					x.Errorf("Count %d, want %d", d.Count, want)
				}
				x.Must(d.Complete(x.Context()))
			})
		})
	}
}

// A loop that ends releases what it fetched and has not reached.
func TestAllReleasesWhatItHolds(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		for i := range 5 {
			x.Send(&queue.Message{Body: []byte{byte(i)}})
		}
		for d, err := range x.Receiver(orders, &queue.ReceiverOptions{Wait: time.Second, Prefetch: 5}).All(x.Context()) {
			x.Must(err)
			x.Must(d.Complete(x.Context()))
			break
		}
		got, err := x.Receiver(orders, nil).Receive(x.Context(), 10)
		x.Must(err)
		for i, d := range got {
			if !bytes.Equal(d.Body, []byte{byte(i + 1)}) {
				x.Errorf("message %d is %v: out of order", i, d.Body)
			}
		}
		if len(got) != 4 {
			x.Errorf("%d messages can be had at once, want 4", len(got))
		}
	})
}

// A loop that ends waits once for a replay store that hangs, however much it holds.
func TestAllBesideAStoreThatHangs(t *testing.T) {
	inHookedBubble(t, nil, func(x *fixture, s *hookedStore) {
		for range 5 {
			x.Send(&queue.Message{Body: []byte("a")})
		}
		calls := 0
		s.finish = func(ctx context.Context, f []replay.Finish) ([]replay.Finished, error) {
			calls++
			return nil, hang(ctx)
		}
		r := x.Receiver(orders, &queue.ReceiverOptions{Wait: time.Second, Prefetch: 5})
		begin := time.Now()
		for _, err := range r.All(x.Context()) {
			x.Must(err)
			break
		}
		stats, err := r.Stats(x.Context())
		x.Must(err)
		if took := time.Since(begin); took > 5*time.Second || calls != 1 || stats.Ready != 4 {
			x.Errorf("%s and %d calls until %d messages were free; want 5s, 1 and 4", took, calls, stats.Ready)
		}
	})
}

// A loop without a context is told so.
func TestAllWithoutAContext(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		n := 0
		for d, err := range x.Receiver(orders, nil).All(noContext) {
			x.failed("All", err, queue.ErrInvalidOptions, "receive")
			if n++; d != nil {
				x.Errorf("%v beside an error", d)
			}
		}
		if n != 1 {
			x.Errorf("%d results, want the error alone", n)
		}
	})
}

// A nonce is remembered for as long as its message can be fresh, whatever is
// configured; what would forget it earlier is refused.
func TestNonceMemoryOutlastsFreshness(t *testing.T) {
	late := func(_ *fixture, o *queue.Options) { o.Crypto.MaxMessageAge = 40 * time.Minute }
	inBubble(t, late, func(x *fixture) {
		x.Send(&queue.Message{Body: []byte("a")})
		stolen := x.Steal()
		r := x.Receiver(orders, nil)
		x.Must(x.One(r).Complete(x.Context()))
		x.Wait(39 * time.Minute)
		x.Inject(orders, stolen)
		x.None(r, queue.ErrNonceReused)
	})
}

// On a transport for text a body in plaintext must not begin as a sealed one
// does in base64: a receiver could not tell.
func TestTextMarkerCollision(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		for _, c := range []struct {
			body   string
			binary bool
			want   error
		}{
			{"UVJFMQ", false, queue.ErrMarkerCollision},
			{"UVJFMQEA and so on", false, queue.ErrMarkerCollision},
			{"UVJFM", false, nil},
			{"UVJFMQEA and so on", true, nil},
			{"QRE1", true, queue.ErrMarkerCollision},
			{"QRE1", false, queue.ErrMarkerCollision},
		} {
			p := &fixturetest.FaultyBroker{Broker: x.Broker, Caps: func(caps *driver.Capabilities) { caps.BinaryBody = c.binary }}
			client, err := queue.New(p, &queue.Options{Logger: quiet()})
			x.Must(err)
			s, err := client.Sender(x.Context(), orders, nil)
			x.Must(err)
			if _, err := s.Send(x.Context(), &queue.Message{Body: []byte(c.body)}); !errors.Is(err, c.want) {
				x.Errorf("%q, binary %t: %v, want %v", c.body, c.binary, err, c.want)
			}
		}
	})
}

// Times are rounded up to the envelope's milliseconds: a message is neither due
// nor expired too early.
func TestTimesRoundUp(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		due := time.Now().Add(time.Minute + 300*time.Microsecond)
		x.Send(&queue.Message{Body: []byte("a"), NotBefore: due, TTL: time.Second + 300*time.Microsecond})
		x.Wait(time.Until(due))
		d := x.One(x.Receiver(orders, nil))
		if want := due.Add(700 * time.Microsecond); !d.NotBefore.Equal(want) {
			x.Errorf("NotBefore %s, want %s", d.NotBefore, want)
		}
		if end := d.NotBefore.Add(d.TTL); end.Before(due.Add(time.Second + 300*time.Microsecond)) {
			x.Errorf("expires at %s, before it may", end)
		}
	})
}

// A message with an unknown key is given the whole horizon, even if the options ask for
// more deliveries than the broker makes.
func TestHorizonWithinTheBrokersDeliveries(t *testing.T) {
	five := func(x *fixture, o *queue.Options) {
		patient(x, o)
		x.Broker = memqueue.New(&memqueue.Options{Default: memqueue.QueueOptions{Lock: 30 * time.Second, MaxDeliveries: 5}})
	}
	inBubble(t, five, func(x *fixture) {
		x.Must(x.Ring.Add(newKey(x.T, "k2", 9)))
		x.Must(x.Ring.SetCurrent("k2"))
		x.Send(&queue.Message{Body: []byte("a")})
		r := x.Receiver(orders, &queue.ReceiverOptions{Keys: newRing(x.T, "k1"), Wait: time.Second, MaxDeliveries: 20})
		begin := time.Now()
		for len(x.DeadReasons(orders)) == 0 && time.Since(begin) < time.Hour {
			x.Nothing(r.Receive(x.Context(), 1))
		}
		if took := time.Since(begin); took < 14*time.Minute || len(x.Rejected) != 5 {
			x.Errorf("dead-lettered after %s and %d deliveries, want 15 m and 5", took, len(x.Rejected))
		}
		if got := x.DeadReasons(orders); len(got) != 1 || got[0] != "key_not_found" {
			x.Errorf("dead letters %v", got)
		}
	})
}

// A message that was handled before and comes again, because the broker did not learn of
// it, is completed silently. It does not end the call that waits for another.
func TestReceiveGoesOnAfterADuplicate(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		p := &fixturetest.FaultyBroker{Broker: x.Broker}
		c, err := queue.New(p, &queue.Options{
			Keys: x.Ring, ReplayStore: x.Store, Logger: quiet(),
			Crypto: queue.CryptoConfig{Enabled: true, PlaintextPolicy: queue.Reject, TrackReplays: true},
		})
		x.Must(err)
		r, err := c.Receiver(x.Context(), orders, &queue.ReceiverOptions{Wait: 5 * time.Second})
		x.Must(err)
		again := func() {
			x.Helper()
			x.Send(&queue.Message{ID: "handled", Body: []byte("x")})
			d := x.One(r)
			p.FailSettle(driver.Errorf(driver.Unavailable, "connection reset"))
			if err := d.Complete(x.Context()); !errors.Is(err, queue.ErrUnavailable) {
				x.Fatalf("Complete: %v", err)
			}
			p.FailSettle(nil)
			x.Wait(31 * time.Second) // the lock is over
		}
		again()
		x.Send(&queue.Message{ID: "next", Body: []byte("x")})
		d := x.One(r)
		if d.ID != "next" {
			x.Errorf("received %s", d.ID)
		}
		x.Must(d.Complete(x.Context()))

		// Without another message the call lasts as long as Wait says.
		again()
		begin := time.Now()
		if _, err := r.ReceiveOne(x.Context()); !errors.Is(err, queue.ErrNoMessage) || time.Since(begin) != 5*time.Second {
			x.Errorf("%v after %s; want ErrNoMessage after 5s", err, time.Since(begin))
		}
		if len(x.Rejected) > 0 {
			x.Errorf("told of %v", x.Rejected)
		}
	})
}

// A duplicate ends the call at once if its session is that of one message: no other can come.
func TestDuplicateInASession(t *testing.T) {
	const wait = 5 * time.Second
	for session, want := range map[string]time.Duration{"": 0, "s": wait} {
		inBubble(t, nil, func(x *fixture) {
			x.Send(&queue.Message{SessionID: session, Body: []byte("a")})
			stolen := x.Steal()
			x.Must(x.One(x.Receiver(orders, nil)).Complete(x.Context()))
			x.Inject(orders, stolen)
			h := &hostileBroker{}
			s, err := x.receiverOf(x.hostile(h, 5*time.Minute, nil), &queue.ReceiverOptions{Wait: wait}).NextSession(x.Context())
			x.Must(err)
			begin := time.Now()
			_, err = s.ReceiveOne(x.Context())
			x.failed("ReceiveOne", err, queue.ErrNoMessage, "receive")
			if took := time.Since(begin); took != want || h.fetched != 1 {
				x.Errorf("session %q: %d messages, and no other within %s; want 1 and %s", session, h.fetched, took, want)
			}
		})
	}
}
