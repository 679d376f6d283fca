package otelqueue_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/observe"
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
	ctx, orders := context.Background(), observe.Source{Queue: "orders"}
	call := func(op observe.Operation, events ...func()) {
		_, end := o.Begin(ctx, orders, op)
		for _, e := range events {
			e()
		}
		end(observe.Result{Count: 1})
	}
	sealed := func() { o.Sealed(ctx, orders, observe.Sealed{Took: time.Microsecond, KeyID: "k1"}) }
	opened := func() { o.Opened(ctx, orders, observe.Opened{Took: time.Microsecond, KeyID: "k1"}) }
	sent := func() { o.Sent(ctx, orders, observe.Sent{Encrypted: true, KeyID: "k1"}) }
	received := func() { o.Received(ctx, orders, observe.Received{Encrypted: true, KeyID: "k1"}) }
	begun := func() { o.InFlight(ctx, orders, observe.InFlight{Delta: 1}) }
	ended := func() { o.InFlight(ctx, orders, observe.InFlight{Delta: -1}) }
	handled := func() {
		o.Handled(ctx, orders, observe.Handled{Took: time.Microsecond, Disposition: driver.Completed})
	}
	settle := observe.Operation{Kind: observe.Settle, Disposition: driver.Completed}
	b.Run("sender", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			call(observe.Operation{Kind: observe.Send}, sealed, sent)
		}
	})
	// A batch of ten shares its calls to the broker.
	b.Run("sender,batch=10", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			call(observe.Operation{Kind: observe.Send}, sealed, sent, sealed, sent, sealed, sent, sealed, sent, sealed, sent,
				sealed, sent, sealed, sent, sealed, sent, sealed, sent, sealed, sent)
		}
	})
	b.Run("receiver", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			call(observe.Operation{Kind: observe.Receive}, opened, received)
			call(settle)
		}
	})
	b.Run("processor", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			call(observe.Operation{Kind: observe.Process}, begun, ended, handled)
		}
	})
	// All of one message in a Processor that gets them one by one.
	b.Run("consumer", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			call(observe.Operation{Kind: observe.Receive}, opened, received)
			call(observe.Operation{Kind: observe.Process}, begun, ended, handled)
			call(settle)
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
		observer observe.Observer
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
