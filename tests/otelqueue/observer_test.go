package otelqueue_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	promclient "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/observe"
	"github.com/queue-runtime/queue/otel/otelqueue"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/worker"
)

// program has a client whose metrics can be scraped and whose spans can be read.
type program struct {
	*testing.T
	observer *otelqueue.Observer
	broker   *memqueue.Broker
	client   *queue.Client
	spans    *tracetest.InMemoryExporter
	metrics  *sdkmetric.MeterProvider
	url      string
}

func observed(t *testing.T, change func(*queue.Options)) *program {
	t.Helper()
	registry := promclient.NewRegistry()
	exporter, err := prometheus.New(prometheus.WithRegisterer(registry), prometheus.WithoutScopeInfo(), prometheus.WithoutTargetInfo())
	if err != nil {
		t.Fatal(err)
	}
	x := &program{T: t, spans: tracetest.NewInMemoryExporter(), metrics: sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter))}
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSyncer(x.spans))
	t.Cleanup(func() {
		_ = tracer.Shutdown(context.Background())
		_ = x.metrics.Shutdown(context.Background())
	})
	server := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	t.Cleanup(server.Close)
	x.url = server.URL
	o, err := otelqueue.New(&otelqueue.Options{MeterProvider: x.metrics, TracerProvider: tracer, System: "memory"})
	if err != nil {
		t.Fatal(err)
	}
	key, err := keys.Generate("k1", &keys.Options{Created: time.Unix(1_700_000_000, 0), Expires: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	ring, err := keys.NewRing(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := ring.SetCurrent("k1"); err != nil {
		t.Fatal(err)
	}
	store, err := replay.NewMemory(nil)
	if err != nil {
		t.Fatal(err)
	}
	x.observer = o
	x.broker = memqueue.New(nil)
	options := &queue.Options{
		Keys: ring, ReplayStore: store, Observer: o, Environment: "production", Logger: slog.New(slog.DiscardHandler),
		Crypto: queue.CryptoConfig{Enabled: true, PlaintextPolicy: queue.AllowWithAlert, TrackReplays: true},
	}
	if change != nil {
		change(options)
	}
	if x.client, err = queue.New(x.broker, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = x.client.Close(context.Background()) })
	return x
}

func (x *program) must(err error) {
	x.Helper()
	if err != nil {
		x.Fatal(err)
	}
}

func (x *program) open() (*queue.Sender, *queue.Receiver) {
	x.Helper()
	s, err := x.client.Sender(x.Context(), "orders", nil)
	x.must(err)
	r, err := x.client.Receiver(x.Context(), "orders", &queue.ReceiverOptions{Wait: 10 * time.Millisecond})
	x.must(err)
	return s, r
}

// scrape returns the lines of /metrics.
func (x *program) scrape() string {
	x.Helper()
	request, err := http.NewRequestWithContext(x.Context(), http.MethodGet, x.url, nil)
	x.must(err)
	response, err := http.DefaultClient.Do(request)
	x.must(err)
	defer func() { _ = response.Body.Close() }()
	b, err := io.ReadAll(response.Body)
	x.must(err)
	return string(b)
}

// The names and labels of the original, exactly, as a scrape shows them.
func TestOriginalNames(t *testing.T) {
	x := observed(t, nil)
	s, r := x.open()
	ctx := t.Context()
	_, err := s.Send(ctx, &queue.Message{ID: "secret-id", SessionID: "secret-session", Body: []byte("payload")})
	x.must(err)
	d, err := r.ReceiveOne(ctx)
	x.must(err)
	x.must(d.Renew(ctx))
	x.must(d.Complete(ctx))
	x.must(x.broker.Attacker().Rewrite(ctx, "orders", func(m []driver.Message) []driver.Message {
		return append(m, driver.Message{ID: "p", Body: []byte("plain")}, driver.Message{ID: "bad", Body: []byte("QRE1nonsense")})
	}))
	d, err = r.ReceiveOne(ctx)
	x.must(err)
	x.must(d.DeadLetter(ctx, queue.Reason{Code: "odd"}))
	if _, err := r.ReceiveOne(ctx); !errors.Is(err, queue.ErrInvalidEnvelope) && !errors.Is(err, queue.ErrUnsupportedVersion) {
		t.Fatal(err)
	}
	session, err := r.NextSession(ctx)
	if err == nil {
		x.must(session.Close(ctx))
	}
	stop, err := otelqueue.WatchDepth(x.metrics, r)
	x.must(err)
	defer func() { x.must(stop()) }()

	p, err := worker.New(nil)
	x.must(err)
	rctx, cancel := context.WithCancel(ctx)
	_, err = s.Send(ctx, &queue.Message{Body: []byte("x")})
	x.must(err)
	x.must(p.Handle(r, worker.HandlerFunc(func(context.Context, *queue.Delivery) error { cancel(); return nil }), nil))
	x.must(p.Run(rctx))

	text := x.scrape()
	for _, want := range []string{
		`queue_messages_sent_total{encrypted="true",queue="orders"} 2`,
		`queue_messages_received_total{encrypted="true",queue="orders"} 2`,
		`queue_messages_received_total{encrypted="false",queue="orders"} 1`,
		`queue_crypto_errors_total{queue="orders",reason="plaintext_allowed"} 1`,
		`queue_crypto_enabled{environment="production",queue="orders"} 1`,
		`queue_crypto_key_created_timestamp{key_id="k1",queue="orders"} 1.7e+09`,
		`queue_crypto_encrypt_duration_seconds_count{queue="orders"} 2`,
		`queue_crypto_decrypt_duration_seconds_count{queue="orders"} 2`,
		`queue_send_duration_seconds_count{queue="orders"} 2`,
		`queue_receive_duration_seconds_count{queue="orders"}`,
		`queue_message_processing_duration_seconds_count{disposition="completed",queue="orders"} 1`,
		`queue_messages_dead_lettered_total{queue="orders",reason="odd"} 1`,
		`queue_processing_messages{queue="orders"} 0`,
		`queue_depth{queue="orders",state="ready"} 0`,
		`queue_lock_renewals_total{queue="orders",result="ok"} 1`,
		`queue_oldest_message_age_seconds{queue="orders"} 0`,
		`queue_crypto_key_uses_total{key_id="k1",operation="seal",queue="orders"} 2`,
		`queue_crypto_key_uses_total{key_id="k1",operation="open",queue="orders"} 2`,
		`queue_settle_duration_seconds_count{disposition="completed",queue="orders"} 2`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the scrape lacks %s", want)
		}
	}
	for _, never := range []string{"secret-id", "secret-session", "payload"} {
		if strings.Contains(text, never) {
			t.Errorf("the scrape has %q", never)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

// Labels are few and bounded.
func TestLabels(t *testing.T) {
	x := observed(t, nil)
	s, r := x.open()
	for i := range 300 {
		_, err := s.Send(t.Context(), &queue.Message{Body: []byte("x")})
		x.must(err)
		d, err := r.ReceiveOne(t.Context())
		x.must(err)
		x.must(d.DeadLetter(t.Context(), queue.Reason{Code: "code_" + string(rune('a'+i%26)) + string(rune('a'+i/26))}))
	}
	text := x.scrape()
	if n := strings.Count(text, `queue_messages_dead_lettered_total{queue="orders",reason="code_`); n != 100 {
		t.Errorf("%d reasons of the application, want 100", n)
	}
	if want := `queue_messages_dead_lettered_total{queue="orders",reason="other"} 200`; !strings.Contains(text, want) {
		t.Errorf("the scrape lacks %s", want)
	}
	// The library's own codes are never among the others.
	x.must(x.broker.Attacker().Rewrite(t.Context(), "orders", func([]driver.Message) []driver.Message {
		return []driver.Message{{ID: "bad", Body: []byte("QRE1\x01nonsense")}}
	}))
	if _, err := r.ReceiveOne(t.Context()); !errors.Is(err, queue.ErrInvalidEnvelope) {
		t.Fatal(err)
	}
	text = x.scrape()
	if want := `queue_messages_dead_lettered_total{queue="orders",reason="invalid_envelope"} 1`; !strings.Contains(text, want) {
		t.Errorf("the scrape lacks %s", want)
	}
	seen := map[string]bool{}
	for _, m := range regexp.MustCompile(`[{,]([a-z_]+)="`).FindAllStringSubmatch(text, -1) {
		seen[m[1]] = true
	}
	allowed := []string{"queue", "encrypted", "environment", "error_type", "key_id", "reason", "disposition", "operation", "result", "state", "le"}
	for _, label := range slices.Sorted(maps.Keys(seen)) {
		if !slices.Contains(allowed, label) {
			t.Errorf("label %s", label)
		}
	}
}

// From the sender's caller over two queues to the last handler is one trace.
func TestOneTrace(t *testing.T) {
	x := observed(t, nil)
	s, r := x.open()
	second, err := x.client.Sender(t.Context(), "next", nil)
	x.must(err)
	last, err := x.client.Receiver(t.Context(), "next", &queue.ReceiverOptions{Wait: 10 * time.Millisecond})
	x.must(err)

	p, err := worker.New(nil)
	x.must(err)
	ctx, cancel := context.WithCancel(t.Context())
	var arrived trace.SpanContext
	x.must(p.Handle(r, worker.HandlerFunc(func(ctx context.Context, d *queue.Delivery) error {
		_, err := second.Send(ctx, &queue.Message{Body: d.Body})
		return err
	}), nil))
	x.must(p.Handle(last, worker.HandlerFunc(func(ctx context.Context, _ *queue.Delivery) error {
		arrived = trace.SpanContextFromContext(ctx)
		cancel()
		return nil
	}), nil))
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSyncer(x.spans)).Tracer("test")
	root, span := tracer.Start(t.Context(), "POST /webhook")
	_, err = s.Send(root, &queue.Message{Body: []byte("x")})
	x.must(err)
	span.End()
	x.must(p.Run(ctx))
	if arrived.TraceID() != span.SpanContext().TraceID() {
		t.Errorf("the last handler is in trace %s, the request in %s", arrived.TraceID(), span.SpanContext().TraceID())
	}
	parents := map[trace.SpanID]tracetest.SpanStub{}
	for _, s := range x.spans.GetSpans() {
		parents[s.SpanContext.SpanID()] = s
	}
	var path []string
	for id := arrived.SpanID(); ; {
		s, ok := parents[id]
		if !ok {
			break
		}
		path = append([]string{s.Name}, path...)
		id = s.Parent.SpanID()
	}
	if want := []string{"POST /webhook", "send orders", "process orders", "send next", "process next"}; !slices.Equal(path, want) {
		t.Errorf("the trace is %q, want %q", path, want)
	}
	for _, s := range x.spans.GetSpans() {
		switch s.Name {
		case "receive orders":
			if len(s.Links) == 0 && attributeOf(s, "messaging.batch.message_count") == "1" {
				t.Error("receive has no link to the message's send")
			}
		case "process orders":
			for name, want := range map[string]string{
				"messaging.system": "memory", "messaging.operation.type": "process", "messaging.destination.name": "orders",
				"queue.key.id": "k1", "queue.encrypted": "true", "queue.disposition": "completed",
			} {
				if got := attributeOf(s, name); got != want {
					t.Errorf("%s of %s is %q, want %q", name, s.Name, got, want)
				}
			}
		}
	}
}

func attributeOf(s tracetest.SpanStub, name string) string {
	for _, a := range s.Attributes {
		if string(a.Key) == name {
			return a.Value.String()
		}
	}
	return ""
}

// What a handler's error says may be payload; a span gets its code alone.
func TestSpansHoldNoPayload(t *testing.T) {
	x := observed(t, nil)
	s, r := x.open()
	_, err := s.Send(t.Context(), &queue.Message{Body: []byte("payload-7")})
	x.must(err)
	p, err := worker.New(nil)
	x.must(err)
	ctx, cancel := context.WithCancel(t.Context())
	x.must(p.Handle(r, worker.HandlerFunc(func(_ context.Context, d *queue.Delivery) error {
		cancel()
		return worker.Permanent(errors.New(string(d.Body)), "bad")
	}), nil))
	x.must(p.Run(ctx))
	for _, s := range x.spans.GetSpans() {
		var b strings.Builder
		b.WriteString(s.Name + s.Status.Description)
		for _, a := range s.Attributes {
			b.WriteString(a.Value.String())
		}
		for _, e := range s.Events {
			b.WriteString(e.Name)
			for _, a := range e.Attributes {
				b.WriteString(a.Value.String())
			}
		}
		if strings.Contains(b.String(), "payload-7") {
			t.Errorf("span %s holds payload", s.Name)
		}
	}
}

// With metrics alone a message costs two allocations on either side at most.
func TestMetricsCost(t *testing.T) {
	o, err := otelqueue.New(&otelqueue.Options{
		MeterProvider:  sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader())),
		TracerProvider: noop.NewTracerProvider(),
	})
	if err != nil {
		t.Fatal(err)
	}
	if o.Traces() {
		t.Error("an Observer without spans says that it makes some")
	}
	ctx, orders := t.Context(), observe.Source{Queue: "orders"}
	call := func(op observe.Operation, events func()) {
		_, end := o.Begin(ctx, orders, op)
		events()
		end(observe.Result{Count: 1})
	}
	for side, f := range map[string]func(){
		"sender": func() {
			call(observe.Operation{Kind: observe.Send}, func() {
				o.Sealed(ctx, orders, observe.Sealed{Took: time.Microsecond, KeyID: "k1"})
				o.Sent(ctx, orders, observe.Sent{Encrypted: true, KeyID: "k1"})
			})
		},
		"receiver": func() {
			call(observe.Operation{Kind: observe.Receive}, func() {
				o.Opened(ctx, orders, observe.Opened{Took: time.Microsecond, KeyID: "k1"})
				o.Received(ctx, orders, observe.Received{Encrypted: true, KeyID: "k1"})
			})
			call(observe.Operation{Kind: observe.Process}, func() {
				o.InFlight(ctx, orders, observe.InFlight{Delta: 1})
				o.InFlight(ctx, orders, observe.InFlight{Delta: -1})
				o.Handled(ctx, orders, observe.Handled{Took: time.Microsecond, Disposition: driver.Completed})
			})
			call(observe.Operation{Kind: observe.Settle, Disposition: driver.Completed}, func() {})
		},
	} {
		f() // the series are made once
		if n := testing.AllocsPerRun(100, f); n > 2 {
			t.Errorf("a %s's message costs %v allocations, want 2 at most", side, n)
		}
	}
}
