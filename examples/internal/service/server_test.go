package service_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.opentelemetry.io/otel"

	"github.com/queue-runtime/queue/examples/internal/service"
)

func get(t *testing.T, h http.Handler, method, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, path, nil))
	return w.Code, strings.TrimSpace(w.Body.String())
}

// Health is of the process, readiness of what it can do, and what the broker said
// is for the log.
func TestAdmin(t *testing.T) {
	t.Parallel()
	telemetry, err := service.NewTelemetryWith(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer telemetry.Close(context.Background()) //nolint:errcheck // nothing is sent
	var broken error
	ready := &service.Readiness{Check: func(context.Context) error { return broken }}
	h := service.Admin(telemetry.Metrics, ready)
	expect := func(path string, status int, text string) {
		t.Helper()
		if code, body := get(t, h, http.MethodGet, path); code != status || !strings.Contains(body, text) {
			t.Errorf("%s: %d %q, want %d %q", path, code, body, status, text)
		}
	}
	expect("/healthz", 200, "ok")
	expect("/readyz", 503, "starting or stopping")
	ready.Begin()
	expect("/readyz", 200, "ready")
	broken = errors.New("dial tcp: secret-host refused")
	expect("/readyz", 503, "the broker does not answer")
	if _, body := get(t, h, http.MethodGet, "/readyz"); strings.Contains(body, "secret-host") {
		t.Error("it shows the broker's error")
	}
	expect("/healthz", 200, "ok")
	ready.End()
	expect("/readyz", 503, "starting or stopping")
	expect("/metrics", 200, "go_goroutines")
	if code, _ := get(t, h, http.MethodPost, "/metrics"); code != http.StatusMethodNotAllowed {
		t.Errorf("POST /metrics: %d", code)
	}
}

// An address that is taken is an error at the start, and says for what it was.
func TestListen(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	s, err := service.Listen("first", "127.0.0.1:0", http.NotFoundHandler(), service.AdminTimeouts, log)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := service.Listen("second", s.Address(), http.NotFoundHandler(), service.AdminTimeouts, log); err == nil || !strings.Contains(err.Error(), "second") {
		t.Errorf("a second server at one address: %v", err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-s.Done(); !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("it ended with %v", err)
	}
}

// Finish has time although the context is over, and hides no error.
func TestFinish(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	first, second := errors.New("first"), errors.New("second")
	err := first
	service.Finish(ctx, &err, func(ctx context.Context) error {
		if ctx.Err() != nil {
			t.Error("the context has ended")
		}
		return second
	})
	if !errors.Is(err, first) || !errors.Is(err, second) {
		t.Errorf("%v, want both errors", err)
	}
}

// Traces are sent where the standard variable says, with the name of the program.
func TestTracesAreSent(t *testing.T) {
	got := make(chan string, 1)
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
		b, err := io.ReadAll(q.Body)
		if err != nil {
			t.Error(err)
		}
		select {
		case got <- q.URL.Path + " " + string(b):
		default:
		}
	}))
	defer collector.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	telemetry, err := service.NewTelemetry(t.Context(), "the-program")
	if err != nil {
		t.Fatal(err)
	}
	_, span := telemetry.Tracer.Tracer("test").Start(t.Context(), "the-span")
	span.End()
	if err := telemetry.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The names stand in the protocol buffer as they are.
	if sent := <-got; !strings.HasPrefix(sent, "/v1/traces ") || !strings.Contains(sent, "the-program") || !strings.Contains(sent, "the-span") {
		t.Errorf("sent %q", sent)
	}
}

// Whatever a program writes to its log is a line of JSON, what OpenTelemetry has to
// complain of, too.
func TestReportErrors(t *testing.T) {
	var log strings.Builder
	service.ReportErrors(&log, "the-program")
	otel.Handle(errors.New("the collector is away"))
	var line struct{ Level, Msg, Program, Error string }
	if err := json.Unmarshal([]byte(log.String()), &line); err != nil {
		t.Fatalf("%v: %s", err, log.String())
	}
	if line.Level != "WARN" || line.Program != "the-program" || line.Error != "the collector is away" {
		t.Errorf("the line is %s", log.String())
	}
}
