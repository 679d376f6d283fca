package otelqueue_test

import (
	"context"
	"testing"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/otel/otelqueue"
)

// BenchmarkObserver is what one message costs with metrics alone: its sealing,
// sending, opening, receiving and handling.
func BenchmarkObserver(b *testing.B) {
	o, err := otelqueue.New(&otelqueue.Options{
		MeterProvider:  sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader())),
		TracerProvider: noop.NewTracerProvider(),
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	b.Run("sender", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			o.Event(ctx, queue.Event{Kind: queue.EventSealed, Queue: "orders", Duration: time.Microsecond, KeyID: "k1"})
			o.Event(ctx, queue.Event{Kind: queue.EventSent, Queue: "orders", Encrypted: true, KeyID: "k1"})
		}
	})
	b.Run("receiver", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			o.Event(ctx, queue.Event{Kind: queue.EventOpened, Queue: "orders", Duration: time.Microsecond, KeyID: "k1"})
			o.Event(ctx, queue.Event{Kind: queue.EventReceived, Queue: "orders", Encrypted: true, KeyID: "k1"})
		}
	})
	b.Run("processor", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, end := o.Begin(ctx, queue.Operation{Kind: queue.OpProcess, Queue: "orders"})
			o.Event(ctx, queue.Event{Kind: queue.EventInFlight, Queue: "orders", Delta: 1})
			o.Event(ctx, queue.Event{Kind: queue.EventInFlight, Queue: "orders", Delta: -1})
			o.Event(ctx, queue.Event{Kind: queue.EventHandled, Queue: "orders", Duration: time.Microsecond, Reason: "complete"})
			end(queue.Result{})
		}
	})
}
