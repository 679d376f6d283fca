package otelqueue_test

import (
	"context"
	"errors"
	"testing"

	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/queue-runtime/queue/observe"
	"github.com/queue-runtime/queue/otel/otelqueue"
)

// The suites that need OpenTelemetry's SDK and Prometheus are in module tests, so
// that this module requires neither.

// TestTraceContext: without an SDK a trace context passes through an Observer, and
// through a silent one nothing does.
func TestTraceContext(t *testing.T) {
	sc := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled})
	for name, c := range map[string]struct {
		o    *otelqueue.Options
		want bool
	}{
		"no SDK": {nil, true},
		"silent": {&otelqueue.Options{MeterProvider: metricnoop.NewMeterProvider(), TracerProvider: tracenoop.NewTracerProvider()}, false},
	} {
		o, err := otelqueue.New(c.o)
		if err != nil {
			t.Fatal(err)
		}
		if o.Traces() != c.want {
			t.Errorf("%s: Traces is %v, want %v", name, o.Traces(), c.want)
		}
		carried := make(map[string]string)
		o.Inject(trace.ContextWithSpanContext(t.Context(), sc), func(name, value string) { carried[name] = value })
		if (carried["traceparent"] != "") != c.want {
			t.Errorf("%s: Inject sets %v", name, carried)
		}
		carried["traceparent"] = "00-01000000000000000000000000000000-0200000000000000-01"
		ctx := o.Extract(t.Context(), func(name string) string { return carried[name] })
		if got := trace.SpanContextFromContext(ctx); got.IsValid() != c.want || c.want && (got.TraceID() != sc.TraceID() || !got.IsRemote()) {
			t.Errorf("%s: Extract finds %v", name, got)
		}
	}
}

// refusing is a MeterProvider whose meter refuses one instrument.
type refusing struct{ metricnoop.MeterProvider }

func (refusing) Meter(string, ...metric.MeterOption) metric.Meter { return refusingMeter{} }

type refusingMeter struct{ metricnoop.Meter }

var errRefused = errors.New("refused")

func (refusingMeter) Int64ObservableCounter(string, ...metric.Int64ObservableCounterOption) (metric.Int64ObservableCounter, error) {
	return nil, errRefused
}

// TestRefusedInstrument: New reports an instrument that the MeterProvider refuses.
func TestRefusedInstrument(t *testing.T) {
	if _, err := otelqueue.New(&otelqueue.Options{MeterProvider: refusing{}}); !errors.Is(err, errRefused) {
		t.Errorf("error %v, want %v", err, errRefused)
	}
}

// TestEnd: an operation without an SDK begins and ends, and leaves its context as it
// was if the tracer is silent.
func TestEnd(t *testing.T) {
	o, err := otelqueue.New(&otelqueue.Options{TracerProvider: tracenoop.NewTracerProvider()})
	if err != nil {
		t.Fatal(err)
	}
	type key struct{}
	ctx := context.WithValue(t.Context(), key{}, 1)
	for _, kind := range []observe.Kind{observe.Send, observe.Receive, observe.Process} {
		got, end := o.Begin(ctx, observe.Source{Queue: "orders"}, observe.Operation{Kind: kind, Count: 1})
		if got != ctx {
			t.Errorf("%s: a silent Observer replaces the context", kind)
		}
		end(observe.Result{Count: 1, Err: errRefused})
	}
}
