package queue_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/memqueue"
)

// BenchmarkProcessor handles messages of 1 KiB from memqueue, beside a bare loop
// that receives in batches and completes. One operation is one message.
func BenchmarkProcessor(b *testing.B) {
	for _, sealed := range []bool{false, true} {
		kind := map[bool]string{false: "plain", true: "sealed"}[sealed]
		b.Run("bare/"+kind, func(b *testing.B) {
			r, stop := filled(b, sealed, b.N)
			defer stop()
			b.ReportAllocs()
			b.ResetTimer()
			for done := 0; done < b.N; {
				batch, err := r.Receive(b.Context(), 32)
				if err != nil {
					b.Fatal(err)
				}
				for _, d := range batch {
					if err := d.Complete(b.Context()); err != nil {
						b.Fatal(err)
					}
				}
				done += len(batch)
			}
		})
		for _, workers := range []int{1, 8, 64} {
			b.Run(fmt.Sprintf("workers=%d/%s", workers, kind), func(b *testing.B) {
				r, stop := filled(b, sealed, b.N)
				defer stop()
				p, err := queue.NewProcessor(&queue.ProcessorOptions{Concurrency: workers})
				if err != nil {
					b.Fatal(err)
				}
				var done atomic.Int64
				ctx, cancel := context.WithCancel(b.Context())
				h := queue.HandlerFunc(func(context.Context, *queue.Delivery) error {
					if done.Add(1) == int64(b.N) {
						cancel()
					}
					return nil
				})
				if err := p.Handle(r, h, nil); err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				b.ResetTimer()
				if err := p.Run(ctx); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}

// filled returns a receiver of a queue with n messages.
func filled(b *testing.B, sealed bool, n int) (*queue.Receiver, func()) {
	b.Helper()
	ring := newRing(b, "k1")
	c, err := queue.New(memqueue.New(nil), &queue.Options{Keys: ring, Logger: quiet(), Crypto: queue.CryptoConfig{Enabled: sealed}})
	if err != nil {
		b.Fatal(err)
	}
	s, err := c.Sender(b.Context(), orders, nil)
	if err != nil {
		b.Fatal(err)
	}
	body := make([]byte, 1024)
	for left := n; left > 0; {
		batch := make([]*queue.Message, min(left, 100))
		for i := range batch {
			batch[i] = &queue.Message{Body: body}
		}
		if _, err := s.SendBatch(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
		left -= len(batch)
	}
	r, err := c.Receiver(b.Context(), orders, nil)
	if err != nil {
		b.Fatal(err)
	}
	return r, func() { _ = c.Close(context.Background()) }
}
