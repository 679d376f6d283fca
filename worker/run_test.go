package worker_test

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/worker"
)

// A handler that ends its goroutine, as a failing test does, costs neither its slot
// nor its message: that is retried like after a panic, and not locked until its time
// for processing is over.
func TestHandlerThatEndsItsGoroutine(t *testing.T) {
	for name, sessions := range map[string]bool{"messages": false, "sessions": true} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(x *fixture) {
				for _, id := range []string{"m0", "m1"} {
					x.Send(&queue.Message{ID: id, SessionID: "s", Body: []byte("a")})
				}
				var told []error
				processor, err := worker.New(&worker.Options{
					Concurrency: 1,
					OnError:     func(_ context.Context, _ *queue.Delivery, err error) { told = append(told, err) },
				})
				x.Must(err)
				ctx, stop := context.WithTimeout(x.Context(), time.Minute)
				defer stop()
				handled := 0
				handler := worker.HandlerFunc(func(_ context.Context, d *queue.Delivery) error {
					if d.Count == 1 {
						runtime.Goexit()
					}
					if handled++; handled == 2 {
						stop()
					}
					return nil
				})
				down, err := backoff.NewBreaker(nil)
				x.Must(err)
				x.Must(processor.Handle(x.Receiver(orders, nil), handler, &worker.HandleOptions{Sessions: sessions, Downstream: down, Retry: backoff.Fixed(time.Second)}))
				x.Must(processor.Run(ctx))
				if handled != 2 || len(told) != 2 || !errors.Is(told[0], worker.ErrPanic) {
					x.Errorf("%d handled within a minute, want 2; told: %v", handled, told)
				}
			})
		})
	}
}
