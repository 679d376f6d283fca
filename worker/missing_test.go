package worker_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/fixturetest"
	"github.com/queue-runtime/queue/worker"
)

// twoQueues runs a pool over a queue whose Receive fails, and another one.
func (x *fixture) twoQueues(o *worker.Options) (p *fixturetest.FaultyBroker, others *atomic.Int64, done <-chan error, stop func()) {
	x.Helper()
	p = &fixturetest.FaultyBroker{Broker: x.Broker}
	c, err := queue.New(p, &queue.Options{Keys: x.Ring, Logger: quiet(), Crypto: queue.CryptoConfig{Enabled: true, MaxMessageAge: time.Hour}})
	x.Must(err)
	broken, err := c.Receiver(x.Context(), "broken", &queue.ReceiverOptions{Wait: time.Second})
	x.Must(err)
	pool, err := worker.New(o)
	x.Must(err)
	others = &atomic.Int64{}
	count := worker.HandlerFunc(func(context.Context, *queue.Delivery) error {
		others.Add(1)
		return nil
	})
	x.Must(pool.Handle(broken, count, nil))
	x.Must(pool.Handle(x.Receiver(orders, nil), count, nil))
	ctx, cancel := context.WithCancel(x.Context())
	ended := make(chan error, 1)
	p.FailReceive(driver.Errorf(driver.NotFound, "no such queue"))
	go func() { ended <- pool.Run(ctx) }()
	return p, others, ended, cancel
}

// A queue that is not found for less than a minute, as one that is created anew, comes back.
func TestAQueueThatIsMissingForAWhile(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		p, others, done, stop := x.twoQueues(nil)
		x.Pass(50 * time.Second)
		p.FailReceive(nil)
		_, err := x.Sender("broken").Send(x.Context(), &queue.Message{Body: []byte("x")})
		x.Must(err)
		x.Pass(time.Minute)
		if others.Load() != 1 {
			x.Error("the queue that came back is not received from")
		}
		stop()
		if err := <-done; err != nil {
			x.Errorf("Run = %v", err)
		}
	})
}

// One that stays away ends the pool with its error, or itself alone by option.
func TestAQueueThatStaysAway(t *testing.T) {
	for _, goOn := range []bool{false, true} {
		inBubble(t, nil, func(x *fixture) {
			_, others, done, stop := x.twoQueues(&worker.Options{ContinueOnError: goOn})
			defer stop()
			x.Pass(5 * time.Minute)
			select {
			case err := <-done:
				if goOn || !errors.Is(err, queue.ErrQueueNotFound) {
					x.Errorf("ContinueOnError %t: Run = %v", goOn, err)
				}
				return
			default:
			}
			if !goOn {
				x.Fatal("Run goes on without the queue")
			}
			x.Send(&queue.Message{Body: []byte("x")})
			x.Pass(2 * time.Second)
			if others.Load() != 1 {
				x.Error("the other queue is not received from")
			}
			stop()
			if err := <-done; !errors.Is(err, queue.ErrQueueNotFound) {
				x.Errorf("Run = %v, want what the missing queue failed with", err)
			}
		})
	}
}
