package worker_test

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/worker"
)

// remoteStore is a replay store that is some network away.
type remoteStore struct {
	replay.Store
	away time.Duration
}

func (s remoteStore) Begin(ctx context.Context, group string, r []replay.Request) ([]replay.Claim, error) {
	time.Sleep(s.away)
	return s.Store.Begin(ctx, group, r)
}

func (s remoteStore) Finish(ctx context.Context, group string, f []replay.Finish) ([]replay.Finished, error) {
	time.Sleep(s.away)
	return s.Store.Finish(ctx, group, f)
}

// A replay store 5 ms away costs a call for each batch, not one for each message: 128 handlers
// with batches of 32 handle at least 15 times what one claim after the other would let
// through, which is 200 messages a second. Time is the bubble's, so that this holds on any
// machine.
func TestRemoteStore(t *testing.T) {
	const messages, away, batch = 3200, 5 * time.Millisecond, 32
	inBubble(t, func(x *fixture, o *queue.Options) {
		o.ReplayStore = remoteStore{x.Store, away}
		o.Logger = quiet()
	}, func(x *fixture) {
		s := x.Sender(orders)
		for i := range messages {
			if _, err := s.Send(x.Context(), &queue.Message{Body: []byte(strconv.Itoa(i))}); err != nil {
				x.Fatal(err)
			}
		}
		var handled atomic.Int64
		over := make(chan struct{})
		begin := time.Now()
		_, stop := x.run(x.Receiver(orders, nil), worker.HandlerFunc(func(context.Context, *queue.Delivery) error {
			if handled.Add(1) == messages {
				close(over)
			}
			return nil
		}), &worker.Options{Concurrency: 4 * batch}, &worker.HandleOptions{Prefetch: batch})
		<-over
		took := time.Since(begin)
		rate := messages / took.Seconds()
		x.Logf("%d messages in %s: %.0f a second", messages, took, rate)
		if least := 15 / away.Seconds(); rate < least {
			x.Errorf("%.0f messages a second, want %.0f", rate, least)
		}
		x.Must(stop())
	})
}
