package worker_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/worker"
)

// What is nothing against a message costs it a delivery on a broker that counts releases. Ten
// of them last for a downstream that is away for three hours, as its breaker knows, and for
// one that asks to wait for two minutes again and again, for half an hour.
func TestOutagesOnABrokerThatCounts(t *testing.T) {
	for name, c := range map[string]struct {
		outage     time.Duration
		downstream bool
		err        error
	}{
		"downstream is away": {3 * time.Hour, true, errors.New("connection refused")},
		"put off":            {30 * time.Minute, false, worker.Later(nil, 2*time.Minute)},
	} {
		for _, sessions := range []bool{false, true} {
			for _, messages := range []int{1, 5, 20} {
				t.Run(fmt.Sprintf("%s, sessions %t, %d", name, sessions, messages), func(t *testing.T) {
					inBubble(t, tenDeliveries, func(x *fixture) {
						x.sendFew(messages, sessions)
						o := x.Client.Options()
						client, err := queue.New(strictCount{x.Broker.Connect(), func(c *driver.Capabilities) {
							if sessions {
								c.AbandonDelay = driver.None // as Service Bus
							}
						}}, &o)
						x.Must(err)
						r, err := client.Receiver(x.Context(), orders, &queue.ReceiverOptions{Wait: time.Second})
						x.Must(err)
						ho := &worker.HandleOptions{Sessions: sessions}
						if c.downstream {
							ho.Downstream, err = backoff.NewBreaker(nil)
							x.Must(err)
						}
						begin := time.Now()
						var handled atomic.Int32
						_, stop := x.run(r, worker.HandlerFunc(func(context.Context, *queue.Delivery) error {
							if time.Since(begin) < c.outage {
								return c.err
							}
							handled.Add(1)
							return nil
						}), nil, ho)
						x.Pass(c.outage + 90*time.Minute)
						x.Must(stop())
						if dead := x.DeadReasons(orders); int(handled.Load()) != messages || len(dead) > 0 {
							x.Errorf("%d of %d were handled, dead letters %v", handled.Load(), messages, dead)
						}
						x.Must(client.Close(x.Context()))
					})
				})
			}
		}
	}
}
