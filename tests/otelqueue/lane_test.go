package otelqueue_test

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"testing"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/observe"
	"github.com/queue-runtime/queue/otel/otelqueue"
)

// sums are the values of a metric by its labels.
func sums(ctx context.Context, t *testing.T, r sdkmetric.Reader, name string) map[string]int64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := r.Collect(ctx, &all); err != nil {
		t.Fatal(err)
	}
	values := make(map[string]int64)
	for _, s := range all.ScopeMetrics {
		for _, m := range s.Metrics {
			if m.Name != name {
				continue
			}
			points, ok := m.Data.(metricdata.Sum[int64])
			if !ok {
				t.Fatalf("%s is a %T", name, m.Data)
			}
			for _, p := range points.DataPoints {
				text := ""
				for _, l := range p.Attributes.ToSlice() {
					text += fmt.Sprintf("%s=%s ", l.Key, l.Value.String())
				}
				values[text] = p.Value
			}
		}
	}
	return values
}

// However many goroutines count at once, over several queues, while a key is replaced
// and while readers collect: each message is counted once, under its own labels.
func TestCountsOnce(t *testing.T) {
	t.Parallel()
	const workers, messages, queues = 8, 300, 3
	r := sdkmetric.NewManualReader()
	o, err := otelqueue.New(&otelqueue.Options{
		MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(r)), TracerProvider: noop.NewTracerProvider(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for i := range messages {
				q := fmt.Sprint("q", i%queues)
				s := observe.Source{Queue: q}
				key := keys.ID("old")
				if i%2 == 1 {
					key = "new"
				}
				o.Sealed(ctx, s, observe.Sealed{KeyID: key})
				o.Sent(ctx, s, observe.Sent{Encrypted: i%2 == 1})
				o.InFlight(ctx, s, observe.InFlight{Delta: 1})
				o.InFlight(ctx, s, observe.InFlight{Delta: -1})
			}
		})
	}
	all.Go(func() {
		for range 20 {
			sums(ctx, t, r, "queue.messages.sent")
		}
	})
	all.Wait()
	const each = workers * messages / queues / 2
	sent, uses, running := map[string]int64{}, map[string]int64{}, map[string]int64{}
	for i := range queues {
		sent[fmt.Sprintf("encrypted=false queue=q%d ", i)] = each
		sent[fmt.Sprintf("encrypted=true queue=q%d ", i)] = each
		uses[fmt.Sprintf("key_id=old operation=seal queue=q%d ", i)] = each
		uses[fmt.Sprintf("key_id=new operation=seal queue=q%d ", i)] = each
		running[fmt.Sprintf("queue=q%d ", i)] = 0
	}
	for name, want := range map[string]map[string]int64{
		"queue.messages.sent": sent, "queue.crypto.key_uses": uses, "queue.processing_messages": running,
	} {
		if got := sums(ctx, t, r, name); !maps.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

// Two Observers of one MeterProvider add up.
func TestObserversAddUp(t *testing.T) {
	t.Parallel()
	r := sdkmetric.NewManualReader()
	meters := sdkmetric.NewMeterProvider(sdkmetric.WithReader(r))
	for range 2 {
		o, err := otelqueue.New(&otelqueue.Options{MeterProvider: meters, TracerProvider: noop.NewTracerProvider()})
		if err != nil {
			t.Fatal(err)
		}
		s := observe.Source{Queue: "q"}
		o.Received(t.Context(), s, observe.Received{Encrypted: true})
		o.CryptoError(t.Context(), s, observe.CryptoError{Reason: "nonce_reused"})
	}
	for name, labels := range map[string]string{
		"queue.messages.received": "encrypted=true queue=q ", "queue.crypto.errors": "queue=q reason=nonce_reused ",
	} {
		if got := sums(t.Context(), t, r, name)[labels]; got != 2 {
			t.Errorf("%s is %d, want 2", name, got)
		}
	}
}
