package queue_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
)

// deliveries is how often each test lets a message come.
const deliveries = 3

// exhaust lets the lock of the only message run out, times times.
func (x *fixture) exhaust(r *queue.Receiver, times int) {
	x.Helper()
	for range times {
		x.one(r)
		x.wait(time.Minute)
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
			x.send(&queue.Message{Body: []byte("a")})
			r := x.receiver(orders, &queue.ReceiverOptions{Wait: time.Second, MaxDeliveries: deliveries})
			x.exhaust(r, deliveries)
			if e := x.none(r, queue.ErrMaxDeliveries); e.Count != deliveries+1 || e.Disposition != driver.DeadLettered {
				x.Errorf("delivery %d: %s, want %d and dead_lettered", e.Count, e.Disposition, deliveries+1)
			}
			if got := x.deadReasons(orders); !slices.Equal(got, []string{driver.ReasonMaxDeliveries}) {
				x.Errorf("dead letters %v", got)
			}
			if e := x.rejected; len(e) != 1 || queue.ReasonOf(e[0]) != driver.ReasonMaxDeliveries {
				x.Errorf("OnRejected was told of %v", e)
			}
		})
	}
}

// The claim of a message that is dead-lettered on arrival is parked, so that it is handled
// when it is sent back.
func TestMaxDeliveriesParksTheClaim(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.send(&queue.Message{Body: []byte("a")})
		copied := x.steal()
		r := x.receiver(orders, &queue.ReceiverOptions{Wait: time.Second, MaxDeliveries: deliveries})
		x.exhaust(r, deliveries)
		x.none(r, queue.ErrMaxDeliveries)
		x.inject(orders, copied)
		d := x.one(r) // not ErrNonceBusy: no lease is waited for
		x.must(d.Complete(x.Context()))
	})
}

// A message that was handled, and whose completion the broker lost, is completed however
// often it came.
func TestMaxDeliveriesOfAHandledMessage(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		p := &faultyBroker{Broker: x.broker}
		c, err := queue.New(p, &queue.Options{Keys: x.ring, ReplayStore: x.store, Logger: quiet(), Crypto: queue.CryptoConfig{Enabled: true, TrackReplays: true}})
		x.must(err)
		x.send(&queue.Message{Body: []byte("a")})
		r, err := c.Receiver(x.Context(), orders, &queue.ReceiverOptions{Wait: time.Second, MaxDeliveries: 1})
		x.must(err)
		p.settle = driver.Errorf(driver.Unavailable, "connection reset")
		if err := x.one(r).Complete(x.Context()); !errors.Is(err, queue.ErrUnavailable) {
			x.Fatalf("Complete = %v", err)
		}
		p.settle = nil
		x.wait(time.Minute)
		x.none(r, queue.ErrNoMessage)
		if n := len(x.deadReasons(orders)) + len(x.stored(orders)); n != 0 {
			x.Errorf("%d messages are left, want none", n)
		}
	})
}

// What was given back unspent is not held against a message, whether the broker counts it
// or not.
func TestMaxDeliveriesDoesNotCountReleases(t *testing.T) {
	for _, uncounted := range []bool{true, false} {
		inBubble(t, nil, func(x *fixture) {
			p := &faultyBroker{Broker: x.broker, caps: func(c *driver.Capabilities) { c.ReleaseUncounted = uncounted }}
			c, err := queue.New(p, &queue.Options{Keys: x.ring, ReplayStore: x.store, Logger: quiet(), Crypto: queue.CryptoConfig{Enabled: true, TrackReplays: true}})
			x.must(err)
			x.send(&queue.Message{Body: []byte("a")})
			r, err := c.Receiver(x.Context(), orders, &queue.ReceiverOptions{Wait: time.Second, MaxDeliveries: deliveries})
			x.must(err)
			for range 4 * deliveries {
				d := x.one(r)
				if d.Count != 1 {
					x.Fatalf("Count is %d after releases alone, want 1 (the broker counts them: %t)", d.Count, !uncounted)
				}
				x.must(d.Release(x.Context(), 0))
			}
			x.exhaust(r, deliveries)
			x.none(r, queue.ErrMaxDeliveries)
		})
	}
}

// A queue without dead letters delivers the message: there is no place for it.
func TestMaxDeliveriesWithoutDeadLetters(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		p := &faultyBroker{Broker: x.broker, caps: func(c *driver.Capabilities) { c.DeadLetter = driver.None }}
		c, err := queue.New(p, &queue.Options{Keys: x.ring, Logger: quiet(), Crypto: queue.CryptoConfig{Enabled: true, MaxMessageAge: time.Hour}})
		x.must(err)
		x.send(&queue.Message{Body: []byte("a")})
		r, err := c.Receiver(x.Context(), orders, &queue.ReceiverOptions{Wait: time.Second, MaxDeliveries: 1})
		x.must(err)
		x.exhaust(r, deliveries)
	})
}

// A claim ends with its lock, also with one below a second: a crash costs one delivery.
func TestClaimEndsWithAShortLock(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.send(&queue.Message{Body: []byte("a")})
		r := x.receiver(orders, &queue.ReceiverOptions{Wait: time.Second, Lock: 300 * time.Millisecond})
		x.one(r) // the process ends here
		for want := 2; want <= 5; want++ {
			x.wait(300 * time.Millisecond)
			if d := x.one(r); d.Count != want {
				x.Errorf("delivery %d, want %d: the claim outlived the lock", d.Count, want)
			}
		}
		if n := len(x.rejected); n != 0 {
			x.Errorf("%d rejected, the first %v; want none", n, x.rejected[0])
		}
	})
}
