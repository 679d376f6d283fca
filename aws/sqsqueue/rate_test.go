package sqsqueue

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	qrt "github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/worker"
)

// distant is the service behind a round trip. It counts the requests that receive.
type distant struct {
	api
	trip     time.Duration
	receives *atomic.Int64
}

func (d distant) travel(ctx context.Context) error {
	select {
	case <-time.After(d.trip):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d distant) ReceiveMessage(ctx context.Context, in *sqs.ReceiveMessageInput, o ...func(*sqs.Options)) (*sqs.ReceiveMessageOutput, error) {
	d.receives.Add(1)
	if err := d.travel(ctx); err != nil {
		return nil, err
	}
	return d.api.ReceiveMessage(ctx, in, o...)
}

func (d distant) DeleteMessageBatch(ctx context.Context, in *sqs.DeleteMessageBatchInput, o ...func(*sqs.Options)) (*sqs.DeleteMessageBatchOutput, error) {
	if err := d.travel(ctx); err != nil {
		return nil, err
	}
	return d.api.DeleteMessageBatch(ctx, in, o...)
}

// rate handles n messages by that many receivers with 256 slots together, and returns how
// long that took and how many requests received.
func rate(t *testing.T, receivers, n int) (took time.Duration, requests int64) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		f.create("pulls", nil)
		t.Cleanup(f.polls.Wait) // the last of the cleanups
		c, err := qrt.New(newBroker(f, &Options{}), &qrt.Options{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		s, err := c.Sender(t.Context(), "pulls", nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < n; i += 1000 {
			batch := make([]*qrt.Message, min(1000, n-i))
			for k := range batch {
				batch[k] = &qrt.Message{ID: fmt.Sprint(i + k), Body: []byte("x")}
			}
			if _, err := s.SendBatch(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
		}
		var received atomic.Int64
		far, err := qrt.New(newBroker(distant{f, 40 * time.Millisecond, &received}, &Options{}), &qrt.Options{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		p, err := worker.New(&worker.Options{Concurrency: 256})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		begin := time.Now()
		var handled atomic.Int64
		h := worker.HandlerFunc(func(context.Context, *qrt.Delivery) error {
			if handled.Add(1) == int64(n) {
				took, requests = time.Since(begin), received.Load()
				cancel()
			}
			return nil
		})
		for range receivers {
			r, err := far.Receiver(t.Context(), "pulls", nil)
			if err == nil {
				err = p.Handle(r, h, nil)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if left := len(f.depth("pulls")); left > 0 || handled.Load() != int64(n) {
			t.Errorf("%d of %d handled, %d left", handled.Load(), n, left)
		}
		for _, c := range []*qrt.Client{c, far} {
			if err := c.Close(context.Background()); err != nil {
				t.Error(err)
			}
		}
	})
	return took, requests
}

// One Receiver at a round trip of 40 ms is as fast as eight: it makes as many requests at
// once as its slots need.
func TestOneReceiverIsAsFastAsEight(t *testing.T) {
	const n = 8000 // beside which the first few round trips count little
	eight, requestsOfEight := rate(t, 8, n)
	one, requests := rate(t, 1, n)
	t.Logf("messages a second and requests: %.0f and %d by eight receivers, %.0f and %d by one",
		n/eight.Seconds(), requestsOfEight, n/one.Seconds(), requests)
	if ratio := eight.Seconds() / one.Seconds(); ratio < 0.9 {
		t.Errorf("one receiver has %.2f of the rate of eight, want at least 0.9", ratio)
	}
	if requests > n/10*11/10 {
		t.Errorf("%d requests for %d messages, want no more than a tenth above full batches", requests, n)
	}
}
