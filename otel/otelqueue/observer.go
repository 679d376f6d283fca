package otelqueue

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/observe"
)

const scopeName = "github.com/queue-runtime/queue/otel/otelqueue"

// Options configure an [Observer].
type Options struct {
	// MeterProvider makes the instruments. Nil means otel.GetMeterProvider.
	MeterProvider metric.MeterProvider

	// TracerProvider makes the spans. Nil means otel.GetTracerProvider. With the provider
	// of package trace/noop there are metrics and no spans, and messages carry no
	// trace context; that costs least.
	TracerProvider trace.TracerProvider

	// System is the messaging.system of spans: "aws_sqs", "servicebus",
	// "sqlite". Empty means "queue-runtime".
	System string
}

// Observer implements [observe.Observer].
type Observer struct {
	observe.Nop
	metrics *instruments
	tracer  trace.Tracer
	traces  propagation.TraceContext
	system  string
	silent  bool // the tracer records nothing and passes nothing on
}

var _ observe.Observer = (*Observer)(nil)

// New returns an Observer. o may be nil. It fails if the MeterProvider refuses an
// instrument.
//
// Give one Observer to all clients of a process. What several Observers of one
// MeterProvider count adds up, but of a state (encryption enabled, receiving paused,
// the breaker, the key in use) the meter keeps what one of them reports.
func New(o *Options) (*Observer, error) {
	if o == nil {
		o = &Options{}
	}
	mp, tp := o.MeterProvider, o.TracerProvider
	if mp == nil {
		mp = otel.GetMeterProvider()
	}
	if tp == nil {
		tp = otel.GetTracerProvider()
	}
	m, err := newInstruments(mp.Meter(scopeName))
	if err != nil {
		return nil, fmt.Errorf("otelqueue: %w", err)
	}
	x := &Observer{metrics: m, tracer: tp.Tracer(scopeName), system: o.System, silent: isNoop(tp)}
	if x.system == "" {
		x.system = "queue-runtime"
	}
	return x, nil
}

// call is what the metrics need of an operation that ended.
type call struct {
	kind        observe.Kind
	disposition driver.Disposition // of a Settle
	took        time.Duration
}

// Begin times an operation and gives it a span.
func (o *Observer) Begin(ctx context.Context, s observe.Source, op observe.Operation) (context.Context, func(observe.Result)) {
	if o.silent && op.Kind == observe.Process {
		return ctx, ended // Handled has its metrics
	}
	begin := time.Now()
	ctx, span := o.start(ctx, s.Queue, &op)
	queue, kind, disposition := s.Queue, op.Kind, op.Disposition
	return ctx, func(r observe.Result) {
		took := r.Took
		if took == 0 {
			took = time.Since(begin)
		}
		o.metrics.ended(ctx, queue, call{kind, disposition, took}, r.Err)
		if span != nil {
			finish(span, kind, &r)
		}
	}
}

func ended(observe.Result) {}

// Traces reports whether spans are made: false if the TracerProvider is that of
// package noop.
func (o *Observer) Traces() bool { return !o.silent }

// Inject hands traceparent and tracestate to set.
func (o *Observer) Inject(ctx context.Context, set func(name, value string)) {
	if !o.silent {
		o.traces.Inject(ctx, setter(set))
	}
}

// Extract returns ctx with the trace context that get gives.
func (o *Observer) Extract(ctx context.Context, get func(name string) string) context.Context {
	if o.silent {
		return ctx
	}
	return o.traces.Extract(ctx, getter(get))
}

type setter func(name, value string)

func (s setter) Get(string) string      { return "" }
func (s setter) Set(name, value string) { s(name, value) }
func (s setter) Keys() []string         { return nil }

type getter func(name string) string

func (g getter) Get(name string) string { return g(name) }
func (g getter) Set(string, string)     {}
func (g getter) Keys() []string         { return nil }
