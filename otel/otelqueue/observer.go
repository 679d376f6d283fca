package otelqueue

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/queue-runtime/queue"
)

const scopeName = "github.com/queue-runtime/queue/otel/otelqueue"

// Options configure an [Observer].
type Options struct {
	// MeterProvider makes the instruments. Nil: otel.GetMeterProvider.
	MeterProvider metric.MeterProvider

	// TracerProvider makes the spans. Nil: otel.GetTracerProvider. A provider
	// that records nothing (package trace/noop) leaves the metrics alone, at
	// their lowest cost.
	TracerProvider trace.TracerProvider

	// System is the messaging.system of spans: "aws_sqs", "servicebus",
	// "sqlite". Empty: "queue-runtime".
	System string
}

// Observer implements queue.Observer.
type Observer struct {
	queue.NopObserver
	metrics *instruments
	tracer  trace.Tracer
	traces  propagation.TraceContext
	system  string
	// silent: the tracer records nothing and passes nothing on.
	silent bool
}

// New returns an Observer. o may be nil. It fails where the MeterProvider refuses
// an instrument.
//
// Give one Observer to all clients of a process: what is counted by several adds up,
// but a state (encryption enabled, receiving paused, the breaker) is that of the one
// that spoke last.
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

// Begin times an operation and gives it a span.
func (o *Observer) Begin(ctx context.Context, op queue.Operation) (context.Context, func(queue.Result)) {
	if o.silent && op.Kind == queue.OpProcess {
		return ctx, nothing // its metrics come with EventHandled
	}
	begin := time.Now()
	ctx, span := o.start(ctx, &op)
	kind, name, on := op.Kind, op.Name, op.Queue
	return ctx, func(r queue.Result) {
		took := r.Took
		if took == 0 {
			took = time.Since(begin)
		}
		o.metrics.ended(ctx, kind, name, on, took, r.Err)
		if span != nil {
			finish(span, kind, &r)
		}
	}
}

func nothing(queue.Result) {}

// Event counts, and notes what concerns the current span on it.
func (o *Observer) Event(ctx context.Context, e queue.Event) {
	o.metrics.event(ctx, &e)
	if !o.silent {
		note(ctx, &e)
	}
}

// Traces reports whether spans are made: false where the TracerProvider is that of
// package noop.
func (o *Observer) Traces() bool { return !o.silent }

// Inject hands over traceparent and tracestate.
func (o *Observer) Inject(ctx context.Context, set func(name, value string)) {
	if !o.silent {
		o.traces.Inject(ctx, setter(set))
	}
}

// Extract takes them in.
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
