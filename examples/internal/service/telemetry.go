package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	exporter "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/queue-runtime/queue/otel/otelqueue"
)

// Telemetry is where a program's metrics and traces go. Nothing of it is global,
// so that a test can have several.
type Telemetry struct {
	Meter   *sdkmetric.MeterProvider
	Tracer  trace.TracerProvider
	Metrics http.Handler // what Prometheus scrapes

	traces *sdktrace.TracerProvider // nil if none are sent
}

// NewTelemetry returns the telemetry of the program of that name. Traces go to
// OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, over HTTP and
// with the sampling of OTEL_TRACES_SAMPLER; if neither is set there are none.
func NewTelemetry(ctx context.Context, name string) (*Telemetry, error) {
	var tracer *sdktrace.TracerProvider
	if os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != "" {
		// It connects when it has something to send, and drops what it cannot.
		x, err := otlptracehttp.New(ctx)
		if err != nil {
			return nil, fmt.Errorf("traces: %w", err)
		}
		// The environment (OTEL_SERVICE_NAME) has the last word.
		r, err := resource.New(ctx, resource.WithAttributes(attribute.String("service.name", name)), resource.WithFromEnv())
		if err != nil {
			return nil, fmt.Errorf("traces: %w", err)
		}
		tracer = sdktrace.NewTracerProvider(sdktrace.WithBatcher(x), sdktrace.WithResource(r))
	}
	return NewTelemetryWith(tracer)
}

// NewTelemetryWith returns telemetry whose spans go to tracer, which may be nil
// for none. It owns the tracer.
func NewTelemetryWith(tracer *sdktrace.TracerProvider) (*Telemetry, error) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	// Without the names of instrumentation scopes, so that the metrics have the
	// labels that alerts and dashboards ask for, and no more.
	x, err := exporter.New(exporter.WithRegisterer(registry), exporter.WithoutScopeInfo(), exporter.WithoutTargetInfo())
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	t := &Telemetry{
		Meter:   sdkmetric.NewMeterProvider(sdkmetric.WithReader(x)),
		Tracer:  noop.NewTracerProvider(),
		Metrics: promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second}),
		traces:  tracer,
	}
	if tracer != nil {
		t.Tracer = tracer
	}
	return t, nil
}

// Observer returns the Observer of a queue.Client over the broker at that URL.
func (t *Telemetry) Observer(brokerURL string) (*otelqueue.Observer, error) {
	return otelqueue.New(&otelqueue.Options{MeterProvider: t.Meter, TracerProvider: t.Tracer, System: system(brokerURL)})
}

// system is the messaging.system of spans, by the broker's scheme.
func system(brokerURL string) string {
	scheme, _, _ := strings.Cut(brokerURL, ":")
	switch strings.ToLower(scheme) {
	case "sqs":
		return "aws_sqs"
	case "sb", "endpoint=sb":
		return "servicebus"
	case "mem":
		return "memory"
	case "sqlite":
		return "sqlite"
	}
	return ""
}

// Close sends what is left of the traces.
func (t *Telemetry) Close(ctx context.Context) error {
	var errs []error
	if t.traces != nil {
		errs = append(errs, t.traces.Shutdown(ctx))
	}
	return errors.Join(append(errs, t.Meter.Shutdown(ctx))...)
}

// ReportErrors makes the failures of OpenTelemetry itself, a collector or a broker's
// counts that are away, lines of the log like others. It is global, and so for main.
func ReportErrors(w io.Writer, program string) {
	log := NewLogger(w, program, slog.LevelWarn)
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		log.Warn("Telemetry failed", "error", err.Error())
	}))
}

// NewLogger returns a logger of JSON lines.
func NewLogger(w io.Writer, program string, level slog.Level) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level})).With("program", program)
}
