package queue

import (
	"context"
	"testing"
	"time"
)

// oneMessage is what a sender, a receiver and a processor tell of one message.
func oneMessage(ctx context.Context, s *scope) {
	s.event(ctx, Event{Kind: EventSealed, Duration: time.Microsecond, KeyID: "k1"})
	_ = s.inject(ctx)
	_, end := s.begin(ctx, Operation{Kind: OpSend, Count: 1, MessageID: "m1"})
	s.event(ctx, Event{Kind: EventSent, Encrypted: true, KeyID: "k1"})
	end(Result{Count: 1})
	s.event(ctx, Event{Kind: EventOpened, Duration: time.Microsecond, KeyID: "k1"})
	s.event(ctx, Event{Kind: EventReceived, Encrypted: true, KeyID: "k1"})
	ctx, end = s.begin(ctx, Operation{Kind: OpProcess, Count: 1, MessageID: "m1"})
	s.event(ctx, Event{Kind: EventInFlight, Delta: 1})
	s.event(ctx, Event{Kind: EventInFlight, Delta: -1})
	s.event(ctx, Event{Kind: EventHandled, Duration: time.Microsecond, Reason: "complete"})
	end(Result{Count: 1, Outcome: "complete"})
}

// Where there is no Observer nothing is allocated for one.
func TestNoObserverAllocatesNothing(t *testing.T) {
	s := &scope{queue: "orders"}
	ctx := t.Context()
	if n := testing.AllocsPerRun(100, func() { oneMessage(ctx, s) }); n != 0 {
		t.Errorf("%v allocations for a message, want none", n)
	}
}

// BenchmarkNoObserver is what the calls for an Observer cost a message where there
// is none: its way from the sender through the handler.
func BenchmarkNoObserver(b *testing.B) {
	s := &scope{queue: "orders"}
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		oneMessage(ctx, s)
	}
}

// untraced is an Observer that makes no spans.
type untraced struct {
	NopObserver
	t *testing.T
}

func (untraced) Traces() bool { return false }

func (u untraced) Inject(context.Context, func(string, string)) {
	u.t.Error("asked for a trace context")
}

func (u untraced) Extract(ctx context.Context, _ func(string) string) context.Context {
	u.t.Error("given a trace context")
	return ctx
}

// An Observer that makes no spans is not asked for what only spans need.
func TestUntracedObserver(t *testing.T) {
	s := newScope(untraced{t: t}, "orders", "")
	if got := s.inject(t.Context()); got != nil {
		t.Errorf("a message carries %v", got)
	}
	s.extract(t.Context(), map[string]string{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})
	if traced := newScope(NopObserver{}, "orders", ""); !traced.traces {
		t.Error("an Observer that does not say is taken for one without spans")
	}
	if none := newScope(nil, "orders", ""); none.traces {
		t.Error("no Observer makes spans")
	}
}
