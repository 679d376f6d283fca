package otelqueue_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/otel/otelqueue"
)

// BenchmarkObserver is what one message costs with metrics alone: sealing and
// sending it; receiving, opening and settling it; and, in a Processor, handling it.
func BenchmarkObserver(b *testing.B) {
	o, err := otelqueue.New(&otelqueue.Options{
		MeterProvider:  sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader())),
		TracerProvider: noop.NewTracerProvider(),
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	call := func(op queue.Operation, events ...queue.Event) {
		op.Queue = "orders"
		ctx, end := o.Begin(ctx, op)
		for i := range events {
			o.Event(ctx, events[i])
		}
		end(queue.Result{Count: 1})
	}
	sealed := queue.Event{Kind: queue.EventSealed, Queue: "orders", Duration: time.Microsecond, KeyID: "k1"}
	opened := queue.Event{Kind: queue.EventOpened, Queue: "orders", Duration: time.Microsecond, KeyID: "k1"}
	sent := queue.Event{Kind: queue.EventSent, Queue: "orders", Encrypted: true, KeyID: "k1"}
	received := queue.Event{Kind: queue.EventReceived, Queue: "orders", Encrypted: true, KeyID: "k1"}
	begun := queue.Event{Kind: queue.EventInFlight, Queue: "orders", Delta: 1}
	ended := queue.Event{Kind: queue.EventInFlight, Queue: "orders", Delta: -1}
	handled := queue.Event{Kind: queue.EventHandled, Queue: "orders", Duration: time.Microsecond, Reason: "complete"}
	b.Run("sender", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			call(queue.Operation{Kind: queue.OpSend}, sealed, sent)
		}
	})
	// A batch of ten shares its calls to the broker.
	b.Run("sender,batch=10", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			call(queue.Operation{Kind: queue.OpSend}, sealed, sent, sealed, sent, sealed, sent, sealed, sent, sealed, sent,
				sealed, sent, sealed, sent, sealed, sent, sealed, sent, sealed, sent)
		}
	})
	b.Run("receiver", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			call(queue.Operation{Kind: queue.OpReceive}, opened, received)
			call(queue.Operation{Kind: queue.OpSettle, Name: "complete"})
		}
	})
	b.Run("processor", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			call(queue.Operation{Kind: queue.OpProcess}, begun, ended, handled)
		}
	})
	// All of one message in a Processor that gets them one by one.
	b.Run("consumer", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			call(queue.Operation{Kind: queue.OpReceive}, opened, received)
			call(queue.Operation{Kind: queue.OpProcess}, begun, ended, handled)
			call(queue.Operation{Kind: queue.OpSettle, Name: "complete"})
		}
	})
}

// BenchmarkMessage is the whole way of one message of 8 KiB, sealed, over a broker in
// memory, without an Observer and with metrics.
func BenchmarkMessage(b *testing.B) {
	o, err := otelqueue.New(&otelqueue.Options{
		MeterProvider:  sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader())),
		TracerProvider: noop.NewTracerProvider(),
	})
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name     string
		observer queue.Observer
	}{{"absent", nil}, {"metrics", o}} {
		b.Run(c.name, func(b *testing.B) {
			key, err := keys.Generate("k1", nil)
			if err != nil {
				b.Fatal(err)
			}
			ring, err := keys.NewRing(key)
			if err != nil {
				b.Fatal(err)
			}
			client, err := queue.New(memqueue.New(nil), &queue.Options{
				Keys: ring, Observer: c.observer, Logger: slog.New(slog.DiscardHandler),
				Crypto: queue.CryptoConfig{Enabled: true, PlaintextPolicy: queue.Reject},
			})
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = client.Close(context.Background()) }()
			s, err := client.Sender(b.Context(), "orders", nil)
			if err != nil {
				b.Fatal(err)
			}
			r, err := client.Receiver(b.Context(), "orders", nil)
			if err != nil {
				b.Fatal(err)
			}
			m := &queue.Message{Body: make([]byte, 8<<10)}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Send(b.Context(), m); err != nil {
					b.Fatal(err)
				}
				d, err := r.ReceiveOne(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				if err := d.Complete(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
