package otelqueue_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/codes"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/deadletter"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/observe"
	"github.com/queue-runtime/queue/otel/otelqueue"
	"github.com/queue-runtime/queue/worker"
)

// span returns the only finished span of that name.
func (x *program) span(name string) tracetest.SpanStub {
	x.Helper()
	var found []tracetest.SpanStub
	for _, s := range x.spans.GetSpans() {
		if s.Name == name {
			found = append(found, s)
		}
	}
	if len(found) != 1 {
		x.Fatalf("%d spans %q, want 1", len(found), name)
	}
	return found[0]
}

// event returns the attributes of a span's event, as name=value.
func (x *program) event(s tracetest.SpanStub, name string) []string {
	x.Helper()
	for _, e := range s.Events {
		if e.Name == name {
			var all []string
			for _, a := range e.Attributes {
				all = append(all, string(a.Key)+"="+a.Value.String())
			}
			slices.Sort(all)
			return all
		}
	}
	x.Errorf("span %q has no event %q: %+v", s.Name, name, s.Events)
	return nil
}

func linkedTo(s tracetest.SpanStub) []trace.SpanID {
	var all []trace.SpanID
	for _, l := range s.Links {
		all = append(all, l.SpanContext.SpanID())
	}
	return all
}

func (x *program) attributes(s tracetest.SpanStub, want map[string]string) {
	x.Helper()
	for name, v := range want {
		if got := attributeOf(s, name); got != v {
			x.Errorf("%s of span %q is %q, want %q", name, s.Name, got, v)
		}
	}
}

// The spans of one message by the semantic conventions: names, kinds, attributes,
// links, and what cryptography did.
func TestSpans(t *testing.T) {
	x := observed(t, nil)
	s, r := x.open()
	_, err := s.Send(t.Context(), &queue.Message{ID: "m1", SessionID: "", Body: []byte("x")})
	x.must(err)
	p, err := worker.New(nil)
	x.must(err)
	ctx, cancel := context.WithCancel(t.Context())
	x.must(p.Handle(r, worker.HandlerFunc(func(context.Context, *queue.Delivery) error { cancel(); return nil }), nil))
	x.must(p.Run(ctx))

	send, process, complete := x.span("send orders"), x.span("process orders"), x.span("settle orders")
	for _, c := range []struct {
		span tracetest.SpanStub
		kind trace.SpanKind
		want map[string]string
	}{
		{send, trace.SpanKindProducer, map[string]string{"messaging.operation.name": "send", "messaging.operation.type": "send", "queue.key.id": "k1"}},
		{process, trace.SpanKindConsumer, map[string]string{"messaging.operation.name": "process", "messaging.operation.type": "process", "queue.disposition": "completed"}},
		{complete, trace.SpanKindClient, map[string]string{"messaging.operation.name": "settle", "messaging.operation.type": "settle", "queue.disposition": "completed"}},
	} {
		if c.span.SpanKind != c.kind {
			t.Errorf("span %q is of kind %v, want %v", c.span.Name, c.span.SpanKind, c.kind)
		}
		c.want["messaging.system"], c.want["messaging.destination.name"], c.want["messaging.message.id"] = "memory", "orders", "m1"
		x.attributes(c.span, c.want)
	}
	sender := send.SpanContext.SpanID()
	if process.Parent.SpanID() != sender || complete.Parent.SpanID() != process.SpanContext.SpanID() {
		t.Errorf("processing is a child of %v, settling of %v; want %v, %v",
			process.Parent.SpanID(), complete.Parent.SpanID(), sender, process.SpanContext.SpanID())
	}
	var received []tracetest.SpanStub
	for _, s := range x.spans.GetSpans() {
		if s.Name == "receive orders" && attributeOf(s, "messaging.batch.message_count") == "1" {
			received = append(received, s)
		}
	}
	if len(received) != 1 {
		t.Fatalf("%d spans received one message, want 1", len(received))
	}
	for _, s := range []tracetest.SpanStub{process, complete, received[0]} {
		if got := linkedTo(s); !slices.Equal(got, []trace.SpanID{sender}) {
			t.Errorf("span %q links to %v, want %v", s.Name, got, sender)
		}
	}
	if received[0].SpanKind != trace.SpanKindClient {
		t.Errorf("receive is of kind %v", received[0].SpanKind)
	}
	if got := x.event(received[0], "queue.opened"); !slices.Equal(got, []string{"queue.key.id=k1"}) {
		t.Errorf("opened: %q", got)
	}
}

// Why a message was rejected is on the span that received it. Its key ID is what
// it claims.
func TestRejectionsAreOnSpans(t *testing.T) {
	x := observed(t, nil)
	s, r := x.open()
	// What fails under a key that has opened no message yet is given back: the key may be
	// the one that is wrong.
	_, err := s.Send(t.Context(), &queue.Message{Body: []byte("good")})
	x.must(err)
	d, err := r.ReceiveOne(t.Context())
	x.must(err)
	x.must(d.Complete(t.Context()))
	x.spans.Reset()
	_, err = s.Send(t.Context(), &queue.Message{Body: []byte("x")})
	x.must(err)
	x.tamper("orders")
	if _, err := r.ReceiveOne(t.Context()); !errors.Is(err, queue.ErrAuthenticationFailed) {
		t.Fatal(err)
	}
	got := x.event(x.span("receive orders"), "queue.rejected")
	want := []string{"queue.disposition=dead_lettered", "queue.key.claimed_id=k1", "queue.reason=authentication_failed"}
	if !slices.Equal(got, want) {
		t.Errorf("rejected: %q, want %q", got, want)
	}
}

// Sealing is noted on the sender's span.
func TestSealingIsOnTheCallersSpan(t *testing.T) {
	x := observed(t, nil)
	s, _ := x.open()
	root, span := sdktrace.NewTracerProvider(sdktrace.WithSyncer(x.spans)).Tracer("test").Start(t.Context(), "request")
	_, err := s.Send(root, &queue.Message{Body: []byte("x")})
	x.must(err)
	span.End()
	if got := x.event(x.span("request"), "queue.sealed"); !slices.Equal(got, []string{"queue.key.id=k1"}) {
		t.Errorf("sealed: %q", got)
	}
}

// Messages that a Batcher sends together stay in the traces of their
// senders, and the one call links to each.
func TestBatchLinks(t *testing.T) {
	// A Batcher sends at once while nothing is under way: it may be so quick that the first
	// message goes alone.
	for range 50 {
		if batchLinks(t) {
			return
		}
	}
	t.Error("no call had two messages")
}

// batchLinks reports whether two messages went in one call.
func batchLinks(t *testing.T) bool {
	x := observed(t, nil)
	s, r := x.open()
	b, err := queue.NewBatcher(s, &queue.BatcherOptions{Linger: time.Minute, MaxMessages: 2, InFlight: 1})
	x.must(err)
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSyncer(x.spans)).Tracer("test")
	var want []trace.SpanID
	traces := map[string]trace.TraceID{}
	done := make(chan queue.SendResult, 2)
	for _, id := range []string{"m1", "m2"} {
		root, span := tracer.Start(t.Context(), "request "+id)
		x.must(b.SendAsync(root, &queue.Message{ID: id, Body: []byte("x")}, func(r queue.SendResult) { done <- r }))
		span.End()
		want = append(want, span.SpanContext().SpanID())
		traces[id] = span.SpanContext().TraceID()
	}
	for range 2 {
		x.must((<-done).Err)
	}
	x.must(b.Close(t.Context()))
	calls := 0
	for _, s := range x.spans.GetSpans() {
		if s.Name == "send orders" {
			calls++
		}
	}
	if calls > 1 {
		return false
	}
	send := x.span("send orders")
	if got := linkedTo(send); !slices.Equal(got, want) {
		t.Errorf("send links to %v, want %v", got, want)
	}
	x.attributes(send, map[string]string{"messaging.batch.message_count": "2", "messaging.message.id": ""})
	for range 2 {
		d, err := r.ReceiveOne(t.Context())
		x.must(err)
		if got := trace.SpanContextFromContext(d.Context(t.Context())).TraceID(); got != traces[d.ID] {
			t.Errorf("message %s is in trace %v, want %v", d.ID, got, traces[d.ID])
		}
		x.must(d.Complete(t.Context()))
	}
	return true
}

// What is redriven keeps its trace, and the redrive links to it.
func TestRedriveLinks(t *testing.T) {
	x := observed(t, nil)
	s, r := x.open()
	_, err := s.Send(t.Context(), &queue.Message{ID: "m1", Body: []byte("x")})
	x.must(err)
	d, err := r.ReceiveOne(t.Context())
	x.must(err)
	x.must(d.DeadLetter(t.Context(), queue.Reason{Code: "odd"}))
	dead, err := deadletter.Open(t.Context(), x.client, "orders", nil)
	x.must(err)
	report, err := dead.Redrive(t.Context(), nil)
	x.must(err)
	if report.Redriven != 1 {
		t.Fatalf("report %+v, want one redriven", report)
	}
	sender := x.span("send orders").SpanContext
	if got := linkedTo(x.span("redrive orders")); !slices.Equal(got, []trace.SpanID{sender.SpanID()}) {
		t.Errorf("redrive links to %v, want %v", got, sender.SpanID())
	}
	d, err = r.ReceiveOne(t.Context())
	x.must(err)
	if got := trace.SpanContextFromContext(d.Context(t.Context())); got.SpanID() != sender.SpanID() {
		t.Errorf("the redriven message comes from %v, want %v", got.SpanID(), sender.SpanID())
	}
	if strings.Contains(x.scrape(), "m1") {
		t.Error("a message ID is in the metrics")
	}
}

// What failed is an error on its span, by a code, and what did not is none.
func TestSpanStatus(t *testing.T) {
	t.Parallel()
	spans := tracetest.NewInMemoryExporter()
	o, err := otelqueue.New(&otelqueue.Options{
		MeterProvider: sdkmetric.NewMeterProvider(), TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans)),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		kind   observe.Kind
		result observe.Result
		status codes.Code
		class  string
	}{
		{observe.Send, observe.Result{}, codes.Unset, ""},
		{observe.Send, observe.Result{Err: fmt.Errorf("amqp: %w", queue.ErrThrottled)}, codes.Error, "throttled"},
		{observe.Receive, observe.Result{Err: context.DeadlineExceeded}, codes.Error, "timeout"},
		{observe.Settle, observe.Result{Err: queue.ErrLockLost}, codes.Error, "lock_lost"},
		{observe.Process, observe.Result{Err: errors.New("payload"), Disposition: driver.Abandoned}, codes.Error, "other"},
		// A message that its handler put off is no failure.
		{observe.Process, observe.Result{Disposition: driver.Abandoned}, codes.Unset, ""},
		{observe.Process, observe.Result{Disposition: driver.Released}, codes.Unset, ""},
	} {
		spans.Reset()
		_, end := o.Begin(t.Context(), observe.Source{Queue: "orders"}, observe.Operation{Kind: c.kind})
		end(c.result)
		s := spans.GetSpans()[0]
		if s.Status.Code != c.status || s.Status.Description != c.class || attributeOf(s, "error.type") != c.class {
			t.Errorf("%s that ends with %+v: status %v %q, error.type %q, want %v %q",
				c.kind, c.result, s.Status.Code, s.Status.Description, attributeOf(s, "error.type"), c.status, c.class)
		}
		if got := attributeOf(s, "queue.disposition"); got != string(c.result.Disposition) {
			t.Errorf("%s that ends with %+v: disposition %q", c.kind, c.result, got)
		}
	}
}

// TestPlannedRetries: what a handler put off is counted apart from what failed.
func TestPlannedRetries(t *testing.T) {
	x := observed(t, nil)
	orders := observe.Source{Queue: "orders"}
	ctx, end := x.observer.Begin(t.Context(), orders, observe.Operation{Kind: observe.Process})
	x.observer.Retried(ctx, orders, observe.Retried{Delay: time.Hour, Planned: true})
	x.observer.Retried(ctx, orders, observe.Retried{})
	x.observer.Retried(ctx, orders, observe.Retried{})
	end(observe.Result{Disposition: driver.Abandoned})
	x.lines(`queue_messages_retried_total{planned="true",queue="orders"} 1`, `queue_messages_retried_total{planned="false",queue="orders"} 2`)
	want := []string{"queue.retry.delay=3600", "queue.retry.planned=true"}
	if got := x.event(x.span("process orders"), "queue.retried"); !slices.Equal(got, want) {
		t.Errorf("retried: %q, want %q", got, want)
	}
}

// The span of a message that its handler put off, with an error and without, is no error.
func TestPutOffIsNoErrorSpan(t *testing.T) {
	x := observed(t, nil)
	s, r := x.open()
	for id, put := range map[string]error{
		"later": worker.Later(nil, time.Hour), "later, with a cause": worker.Later(errors.New("busy"), time.Hour),
		"retry": worker.RetryAfter(nil, time.Hour), "retry, with a cause": worker.RetryAfter(errors.New("busy"), time.Hour),
	} {
		x.spans.Reset()
		_, err := s.Send(t.Context(), &queue.Message{ID: id, Body: []byte("x")})
		x.must(err)
		p, err := worker.New(nil)
		x.must(err)
		ctx, cancel := context.WithCancel(t.Context())
		x.must(p.Handle(r, worker.HandlerFunc(func(context.Context, *queue.Delivery) error {
			defer cancel()
			return put
		}), nil))
		x.must(p.Run(ctx))
		if span := x.span("process orders"); span.Status.Code != codes.Unset {
			t.Errorf("%s: the span has status %v %q", id, span.Status.Code, span.Status.Description)
		}
	}
}

// Baggage stays in its process: a message is cleartext except for its body, and a
// program that puts baggage into a context does not expect a broker to see it.
func TestNoBaggage(t *testing.T) {
	t.Parallel()
	member, err := baggage.NewMember("customer", "private")
	if err != nil {
		t.Fatal(err)
	}
	all, err := baggage.New(member)
	if err != nil {
		t.Fatal(err)
	}
	tracer := sdktrace.NewTracerProvider()
	o, err := otelqueue.New(&otelqueue.Options{MeterProvider: sdkmetric.NewMeterProvider(), TracerProvider: tracer})
	if err != nil {
		t.Fatal(err)
	}
	ctx, span := tracer.Tracer("test").Start(baggage.ContextWithBaggage(t.Context(), all), "x")
	defer span.End()
	carried := map[string]string{}
	o.Inject(ctx, func(name, value string) { carried[name] = value })
	if len(carried) != 1 || carried["traceparent"] == "" {
		t.Errorf("a message carries %v, want traceparent alone", carried)
	}
	// Nor is baggage taken from the broker.
	carried["baggage"] = "customer=forged"
	ctx = o.Extract(t.Context(), func(name string) string { return carried[name] })
	if got := baggage.FromContext(ctx); got.Len() != 0 || !trace.SpanContextFromContext(ctx).IsRemote() {
		t.Errorf("baggage %s, span %v", got, trace.SpanContextFromContext(ctx))
	}
}
