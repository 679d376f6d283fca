package worker_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/fixturetest"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/worker"
)

// strictCount is a broker that counts each delivery, and can do what caps leaves it.
type strictCount struct {
	driver.Broker
	caps func(*driver.Capabilities)
}

func (b strictCount) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := b.Broker.Open(ctx, name, o)
	return &strictCountQueue{q, b.caps}, err
}

type strictCountQueue struct {
	driver.Queue
	caps func(*driver.Capabilities)
}

func (q *strictCountQueue) Capabilities() driver.Capabilities {
	c := q.Queue.Capabilities()
	c.ReleaseUncounted = false
	q.caps(&c)
	return c
}

// abandoning makes releases of settlements abandons, as a driver does whose broker counts.
func abandoning(all []driver.Settlement) []driver.Settlement {
	for i := range all {
		if all[i].Kind == driver.Release {
			all[i].Kind = driver.Abandon
		}
	}
	return all
}

func (q *strictCountQueue) Settle(ctx context.Context, all []driver.Settlement) []error {
	return q.Queue.Settle(ctx, abandoning(all))
}

func (q *strictCountQueue) AcceptSession(ctx context.Context, id string, wait time.Duration) (driver.Session, error) {
	s, err := q.Queue.AcceptSession(ctx, id, wait)
	if err != nil {
		return nil, err
	}
	return &strictCountSession{s}, nil
}

type strictCountSession struct{ driver.Session }

func (s *strictCountSession) Settle(ctx context.Context, all []driver.Settlement) []error {
	return s.Session.Settle(ctx, abandoning(all))
}

// countingBrokers are brokers that count each delivery, by what they can do besides.
var countingBrokers = map[string]struct {
	caps     func(*driver.Capabilities)
	sessions bool
}{
	"as Service Bus":                {func(*driver.Capabilities) {}, false},
	"as SQS":                        {func(c *driver.Capabilities) { c.Peek = driver.None }, false},
	"as SQS FIFO":                   {func(c *driver.Capabilities) { c.Peek = driver.None }, true},
	"as Service Bus, with sessions": {func(c *driver.Capabilities) { c.Peek, c.AbandonDelay = driver.None, driver.None }, true},
}

// tenDeliveries has the broker take a message for dead after ten.
func tenDeliveries(x *fixture, o *queue.Options) {
	x.Broker = fixturetest.NewBroker(10)
	o.Crypto.MaxMessageAge = 24 * time.Hour
}

// sendFew sends messages, each in a session of its own if they have sessions.
func (x *fixture) sendFew(n int, sessions bool) {
	for i := range n {
		m := &queue.Message{Body: []byte("a")}
		if sessions {
			m.SessionID = fmt.Sprint("s", i)
		}
		x.Send(m)
	}
}

// handleWith handles messages with the keys of ring, from a broker that counts each delivery.
// stop ends that.
func (x *fixture) handleWith(ring *keys.Ring, caps func(*driver.Capabilities), sessions bool) (handled *atomic.Int32, r *queue.Receiver, stop func()) {
	o := x.Client.Options()
	o.Keys, o.KeysFor = ring, nil
	client, err := queue.New(strictCount{x.Broker.Connect(), caps}, &o)
	x.Must(err)
	r, err = client.Receiver(x.Context(), orders, &queue.ReceiverOptions{Wait: time.Second})
	x.Must(err)
	handled = new(atomic.Int32)
	h := worker.HandlerFunc(func(context.Context, *queue.Delivery) error { handled.Add(1); return nil })
	_, end := x.run(r, h, nil, &worker.HandleOptions{Sessions: sessions})
	return handled, r, func() {
		x.Must(end())
		x.Must(client.Close(x.Context()))
	}
}

// Few messages, on a broker that counts each delivery, outlast two hours of a wrong secret,
// although they fail one by one and so come again sooner than those of a backlog. They are
// handled once it is corrected, without a restart.
func TestWrongSecretAndFewMessages(t *testing.T) {
	for name, c := range countingBrokers {
		for _, messages := range []int{1, 3, 12} {
			for _, other := range []bool{false, true} { // another key works
				outage := 2 * time.Hour
				if other && c.sessions {
					outage = 12 * time.Minute // they wait for RotationHorizon, and not longer
				}
				t.Run(fmt.Sprintf("%s, %d, another key works %t", name, messages, other), func(t *testing.T) {
					inBubble(t, tenDeliveries, func(x *fixture) {
						x.sendFew(messages, c.sessions)
						want := messages
						ring, err := keys.NewRing(newKey(x.T, "k1", 0xee))
						x.Must(err)
						if other {
							want++
							x.Must(x.Ring.Add(newKey(x.T, "k2", 2)))
							x.Must(x.Ring.SetCurrent("k2"))
							x.Must(ring.Add(newKey(x.T, "k2", 2)))
							m := &queue.Message{Body: []byte("a")}
							if c.sessions {
								m.SessionID = "other"
							}
							x.Send(m)
						}
						handled, _, stop := x.handleWith(ring, c.caps, c.sessions)
						x.Pass(outage)
						x.Must(ring.Remove("k1"))
						x.Must(ring.Add(newKey(x.T, "k1", 1)))
						x.Pass(40 * time.Minute)
						stop()
						if dead := x.DeadReasons(orders); int(handled.Load()) != want || len(dead) > 0 {
							x.Errorf("%d of %d were handled after the correction, dead letters %v", handled.Load(), want, dead)
						}
					})
				})
			}
		}
	}
}

// A key that comes just within RotationHorizon finds its messages alive on every kind of
// broker, however short its locks are.
func TestLateKeyOnABrokerThatCounts(t *testing.T) {
	for name, c := range countingBrokers {
		for _, messages := range []int{1, 5} {
			t.Run(fmt.Sprintf("%s, %d", name, messages), func(t *testing.T) {
				inBubble(t, tenDeliveries, func(x *fixture) {
					x.Must(x.Ring.Add(newKey(x.T, "k2", 2)))
					x.Must(x.Ring.SetCurrent("k2"))
					x.sendFew(messages, c.sessions)
					ring := fixturetest.NewRing(x.T, "k1")
					handled, r, stop := x.handleWith(ring, c.caps, c.sessions)
					x.Pass(r.Options().RotationHorizon * 9 / 10)
					x.Must(ring.Add(newKey(x.T, "k2", 2)))
					x.Pass(20 * time.Minute)
					stop()
					if dead := x.DeadReasons(orders); int(handled.Load()) != messages || len(dead) > 0 {
						x.Errorf("%d of %d were handled, dead letters %v", handled.Load(), messages, dead)
					}
				})
			})
		}
	}
}
