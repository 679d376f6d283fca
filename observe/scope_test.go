package observe_test

import (
	"context"
	"testing"
	"time"

	"github.com/queue-runtime/queue/observe"
)

// oneMessage is what a sender, a receiver and a worker tell of one message.
func oneMessage(ctx context.Context, s *observe.Scope) {
	s.Sealed(ctx, s.Source, observe.Sealed{Took: time.Microsecond, KeyID: "k1"})
	_ = s.TraceOf(ctx)
	_, end := s.Start(ctx, observe.Operation{Kind: observe.Send, Count: 1, MessageID: "m1"})
	s.Sent(ctx, s.Source, observe.Sent{Encrypted: true, KeyID: "k1"})
	end(observe.Result{Count: 1})
	s.Opened(ctx, s.Source, observe.Opened{Took: time.Microsecond, KeyID: "k1"})
	s.Received(ctx, s.Source, observe.Received{Encrypted: true, KeyID: "k1"})
	ctx, end = s.Start(ctx, observe.Operation{Kind: observe.Process, Count: 1, MessageID: "m1"})
	s.InFlight(ctx, s.Source, observe.InFlight{Delta: 1})
	s.InFlight(ctx, s.Source, observe.InFlight{Delta: -1})
	s.Handled(ctx, s.Source, observe.Handled{Took: time.Microsecond, Disposition: "completed"})
	end(observe.Result{Count: 1, Disposition: "completed"})
}

// TestNoObserverAllocatesNothing: without an Observer, events and operations cost no
// allocation.
func TestNoObserverAllocatesNothing(t *testing.T) {
	s := observe.NewScope(nil, observe.Source{Queue: "orders"})
	ctx := t.Context()
	if n := testing.AllocsPerRun(100, func() { oneMessage(ctx, &s) }); n != 0 {
		t.Errorf("%v allocations for a message, want 0", n)
	}
}

// BenchmarkNoObserver is what the calls for an Observer cost a message without one,
// on its way from the sender through the handler.
func BenchmarkNoObserver(b *testing.B) {
	s := observe.NewScope(nil, observe.Source{Queue: "orders"})
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		oneMessage(ctx, &s)
	}
}

// tracer is an Observer whose Traces answers as told, and that fails the test when it
// is asked about a trace although it makes none.
type tracer struct {
	observe.Nop
	t      *testing.T
	traces bool
}

func (o tracer) Traces() bool { return o.traces }

func (o tracer) Inject(_ context.Context, set func(name, value string)) {
	if !o.traces {
		o.t.Error("Inject was called although Traces is false")
	}
	set("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	set("tracestate", "")
	set("baggage", "secret=1")
}

func (o tracer) Extract(ctx context.Context, _ func(string) string) context.Context {
	if !o.traces {
		o.t.Error("Extract was called although Traces is false")
	}
	return ctx
}

// TestTraces: an Observer without spans is not asked for what only spans need; one
// with spans is, and only W3C's two names are carried.
func TestTraces(t *testing.T) {
	parent := map[string]string{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
	silent := observe.NewScope(tracer{t: t}, observe.Source{Queue: "orders"})
	if got := silent.TraceOf(t.Context()); got != nil {
		t.Errorf("without spans a message carries %v, want nothing", got)
	}
	silent.WithTrace(t.Context(), parent)
	traced := observe.NewScope(tracer{t: t, traces: true}, observe.Source{Queue: "orders"})
	if got := traced.TraceOf(t.Context()); len(got) != 1 || got["traceparent"] != parent["traceparent"] {
		t.Errorf("with spans a message carries %v, want %v", got, parent)
	}
	for _, o := range []observe.Observer{nil, observe.Nop{}} {
		if none := observe.NewScope(o, observe.Source{}); none.Active() || none.Traces() {
			t.Errorf("%v: active %t, traces %t, want neither", o, none.Active(), none.Traces())
		}
	}
}

// TestFunc: every event reaches the function.
func TestFunc(t *testing.T) {
	var got []any
	s := observe.NewScope(observe.Func(func(_ context.Context, src observe.Source, event any) {
		if src.Queue != "orders" {
			t.Errorf("queue %q, want orders", src.Queue)
		}
		got = append(got, event)
	}), observe.Source{Queue: "orders"})
	oneMessage(t.Context(), &s)
	if len(got) != 7 {
		t.Errorf("%d events, want 7: %v", len(got), got)
	}
}

// TestIDs: two senders of one queue have IDs of their own; a Source that has one
// keeps it.
func TestIDs(t *testing.T) {
	o := observe.Func(func(context.Context, observe.Source, any) {})
	first, second := observe.NewScope(o, observe.Source{Queue: "orders"}), observe.NewScope(o, observe.Source{Queue: "orders"})
	if a, b := first.Source.ID, second.Source.ID; a == 0 || b == 0 || a == b {
		t.Errorf("IDs %d and %d, want two that differ and are not 0", a, b)
	}
	if again := observe.NewScope(o, first.Source); again.Source != first.Source {
		t.Errorf("source %+v, want %+v", again.Source, first.Source)
	}
}
