package queue_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/fixturetest"
)

// deliveries is how often each test lets a message come.
const deliveries = 3

// exhaust lets the lock of the only message run out, times times.
func (x *fixture) exhaust(r *queue.Receiver, times int) {
	x.Helper()
	for range times {
		x.One(r)
		x.Wait(time.Minute)
	}
}

// A message that never leaves an outcome behind is dead-lettered before it is handed out
// once more, although the broker sets no limit.
func TestMaxDeliveriesOnArrival(t *testing.T) {
	for _, track := range []bool{false, true} {
		inBubble(t, func(_ *fixture, o *queue.Options) {
			o.Crypto.TrackReplays = track
			o.Crypto.MaxMessageAge = time.Hour
		}, func(x *fixture) {
			x.Send(&queue.Message{Body: []byte("a")})
			r := x.Receiver(orders, &queue.ReceiverOptions{Wait: time.Second, MaxDeliveries: deliveries})
			x.exhaust(r, deliveries)
			if e := x.None(r, queue.ErrMaxDeliveries); e.Count != deliveries+1 || e.Disposition != driver.DeadLettered {
				x.Errorf("delivery %d: %s, want %d and dead_lettered", e.Count, e.Disposition, deliveries+1)
			}
			if got := x.DeadReasons(orders); !slices.Equal(got, []string{driver.ReasonMaxDeliveries}) {
				x.Errorf("dead letters %v", got)
			}
			if e := x.Rejected; len(e) != 1 || queue.ReasonOf(e[0]) != driver.ReasonMaxDeliveries {
				x.Errorf("OnRejected was told of %v", e)
			}
		})
	}
}

// The claim of a message that is dead-lettered on arrival is parked, so that it is handled
// when it is sent back.
func TestMaxDeliveriesParksTheClaim(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{Body: []byte("a")})
		copied := x.Steal()
		r := x.Receiver(orders, &queue.ReceiverOptions{Wait: time.Second, MaxDeliveries: deliveries})
		x.exhaust(r, deliveries)
		x.None(r, queue.ErrMaxDeliveries)
		x.Inject(orders, copied)
		d := x.One(r) // not ErrNonceBusy: no lease is waited for
		x.Must(d.Complete(x.Context()))
	})
}

// A message that was handled, and whose completion the broker lost, is completed however
// often it came.
func TestMaxDeliveriesOfAHandledMessage(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		p := &fixturetest.FaultyBroker{Broker: x.Broker}
		c, err := queue.New(p, &queue.Options{Keys: x.Ring, ReplayStore: x.Store, Logger: quiet(), Crypto: queue.CryptoConfig{Enabled: true, TrackReplays: true}})
		x.Must(err)
		x.Send(&queue.Message{Body: []byte("a")})
		r, err := c.Receiver(x.Context(), orders, &queue.ReceiverOptions{Wait: time.Second, MaxDeliveries: 1})
		x.Must(err)
		p.FailSettle(driver.Errorf(driver.Unavailable, "connection reset"))
		if err := x.One(r).Complete(x.Context()); !errors.Is(err, queue.ErrUnavailable) {
			x.Fatalf("Complete = %v", err)
		}
		p.FailSettle(nil)
		x.Wait(time.Minute)
		x.None(r, queue.ErrNoMessage)
		if n := len(x.DeadReasons(orders)) + len(x.Stored(orders)); n != 0 {
			x.Errorf("%d messages are left, want none", n)
		}
	})
}

// What was given back unspent is not held against a message, whether the broker counts it
// or not.
func TestMaxDeliveriesDoesNotCountReleases(t *testing.T) {
	for _, uncounted := range []bool{true, false} {
		inBubble(t, nil, func(x *fixture) {
			p := &fixturetest.FaultyBroker{Broker: x.Broker, Caps: func(c *driver.Capabilities) { c.ReleaseUncounted = uncounted }}
			c, err := queue.New(p, &queue.Options{Keys: x.Ring, ReplayStore: x.Store, Logger: quiet(), Crypto: queue.CryptoConfig{Enabled: true, TrackReplays: true}})
			x.Must(err)
			x.Send(&queue.Message{Body: []byte("a")})
			r, err := c.Receiver(x.Context(), orders, &queue.ReceiverOptions{Wait: time.Second, MaxDeliveries: deliveries})
			x.Must(err)
			for range 4 * deliveries {
				d := x.One(r)
				if d.Count != 1 {
					x.Fatalf("Count is %d after releases alone, want 1 (the broker counts them: %t)", d.Count, !uncounted)
				}
				x.Must(d.Release(x.Context(), 0))
			}
			x.exhaust(r, deliveries)
			x.None(r, queue.ErrMaxDeliveries)
		})
	}
}

// A queue without dead letters delivers the message: there is no place for it.
func TestMaxDeliveriesWithoutDeadLetters(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		p := &fixturetest.FaultyBroker{Broker: x.Broker, Caps: func(c *driver.Capabilities) { c.DeadLetter = driver.None }}
		c, err := queue.New(p, &queue.Options{Keys: x.Ring, Logger: quiet(), Crypto: queue.CryptoConfig{Enabled: true, MaxMessageAge: time.Hour}})
		x.Must(err)
		x.Send(&queue.Message{Body: []byte("a")})
		r, err := c.Receiver(x.Context(), orders, &queue.ReceiverOptions{Wait: time.Second, MaxDeliveries: 1})
		x.Must(err)
		x.exhaust(r, deliveries)
	})
}

// A claim ends with its lock, also with one below a second: a crash costs one delivery.
func TestClaimEndsWithAShortLock(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{Body: []byte("a")})
		r := x.Receiver(orders, &queue.ReceiverOptions{Wait: time.Second, Lock: 300 * time.Millisecond})
		x.One(r) // the process ends here
		for want := 2; want <= 5; want++ {
			x.Wait(300 * time.Millisecond)
			if d := x.One(r); d.Count != want {
				x.Errorf("delivery %d, want %d: the claim outlived the lock", d.Count, want)
			}
		}
		if n := len(x.Rejected); n != 0 {
			x.Errorf("%d rejected, the first %v; want none", n, x.Rejected[0])
		}
	})
}
