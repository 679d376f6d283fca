package otelqueue

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/queue-runtime/queue/observe"
)

// openQueues opens n queues, and sends and receives a message of each.
func openQueues(ctx context.Context, o *Observer, n int) {
	for i := range n {
		s := observe.Source{Queue: fmt.Sprint("queue-", i), ID: uint64(i) + 1}
		o.Configured(ctx, s, observe.Configured{Role: observe.Receiver, Encrypted: true})
		o.Sealed(ctx, s, observe.Sealed{KeyID: "k1"})
		o.Sent(ctx, s, observe.Sent{Encrypted: true})
		o.Received(ctx, s, observe.Received{Encrypted: true})
	}
}

// TestOpeningIsLinear: the last of 10,000 queues costs what the first ones cost, counted
// in allocated bytes and in entries that were copied because a table grew.
func TestOpeningIsLinear(t *testing.T) {
	perQueue := func(n int) (bytes float64, o *Observer) {
		o, err := New(&Options{MeterProvider: noop.NewMeterProvider(), TracerProvider: tracenoop.NewTracerProvider()})
		if err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		openQueues(t.Context(), o, n)
		runtime.ReadMemStats(&after)
		return float64(after.TotalAlloc-before.TotalAlloc) / float64(n), o
	}
	few, _ := perQueue(100)
	many, o := perQueue(10_000)
	t.Logf("%.0f bytes for each of 100 queues, %.0f for each of 10,000", few, many)
	if many > 2*few {
		t.Errorf("each of 10,000 queues costs %.0f bytes, each of 100 costs %.0f", many, few)
	}
	for name, c := range map[string]struct{ size, copied int }{
		"all": {o.metrics.all.size, o.metrics.all.copied}, "queues": {o.metrics.queues.size, o.metrics.queues.copied},
		"sent": {o.metrics.sent.size, o.metrics.sent.copied},
	} {
		if c.size < 10_000 || c.copied > 2*c.size {
			t.Errorf("table %s: %d entries were copied for %d, want 2 for each at most", name, c.copied, c.size)
		}
	}
}

// TestTable: each key has one value, made once, however many ask for it while the
// table grows, and each calls for every value once.
func TestTable(t *testing.T) {
	const workers, keys = 8, 2000
	var tab table[labels, int]
	if tab.each(func(*int) { t.Error("an empty table has a value") }); tab.find(0, labels{}) != nil {
		t.Error("an empty table finds a value")
	}
	var mu sync.Mutex
	made := make(map[labels]int)
	got := make([][]*int, workers)
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for k := range keys {
				l := labels{byQueue, fmt.Sprint((k + w*keys/workers) % keys), "", ""}
				got[w] = append(got[w], tab.get(l, func(l labels) *int {
					mu.Lock()
					defer mu.Unlock()
					made[l]++
					return new(int)
				}))
			}
		})
	}
	all.Wait()
	for l, n := range made {
		if n != 1 {
			t.Errorf("the value of %v was made %d times", l, n)
		}
	}
	for w := range got {
		for k, v := range got[w] {
			if first := got[0][(k+w*keys/workers)%keys]; v != first {
				t.Fatalf("worker %d has another value of key %d", w, k)
			}
		}
	}
	values := make(map[*int]bool)
	tab.each(func(v *int) { values[v] = true })
	if len(made) != keys || len(values) != keys {
		t.Errorf("%d values were made and %d are there, want %d", len(made), len(values), keys)
	}
}

// BenchmarkTable is a look-up of a series that is there, among as many as a process
// with one queue and with 1,000 has.
func BenchmarkTable(b *testing.B) {
	for _, n := range []int{20, 20_000} {
		b.Run(fmt.Sprint("series=", n), func(b *testing.B) {
			var tab table[labels, series]
			for i := range n {
				tab.get(labels{byReason, fmt.Sprint("queue-", i), "authentication_failed", ""}, newSeries)
			}
			l := labels{byReason, "queue-7", "authentication_failed", ""}
			b.ReportAllocs()
			for b.Loop() {
				tab.get(l, newSeries)
			}
		})
	}
}
