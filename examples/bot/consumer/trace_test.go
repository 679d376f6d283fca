package consumer_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/azure/sbqueue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/examples/bot/consumer"
	"github.com/queue-runtime/queue/examples/internal/hooks"
	"github.com/queue-runtime/queue/examples/internal/service"
	"github.com/queue-runtime/queue/examples/webhook-router/router"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/sqlite/sqlitequeue"
	"github.com/queue-runtime/queue/testbed/sbemulator"
	"github.com/queue-runtime/queue/worker"
)

const secret = "a secret of GitHub and us"

// traced is what the programs of one test share: where their spans go, keys, and
// a log that is thrown away.
type traced struct {
	*testing.T
	spans *tracetest.InMemoryExporter
	dir   string
	log   *slog.Logger
}

func newTraced(t *testing.T) *traced {
	return &traced{t, tracetest.NewInMemoryExporter(), filepath.ToSlash(t.TempDir()), slog.New(slog.DiscardHandler)}
}

func (x *traced) must(err error) {
	x.Helper()
	if err != nil {
		x.Fatal(err)
	}
}

// telemetry returns that of one program: each has a TracerProvider of its own, as
// each process has.
func (x *traced) telemetry() *service.Telemetry {
	x.Helper()
	t, err := service.NewTelemetryWith(sdktrace.NewTracerProvider(sdktrace.WithSyncer(unclosed{x.spans})))
	x.must(err)
	x.Cleanup(func() { x.must(t.Close(context.Background())) })
	return t
}

// unclosed keeps the spans of a program that has ended.
type unclosed struct{ sdktrace.SpanExporter }

func (unclosed) Shutdown(context.Context) error { return nil }

// key makes a key file and returns its URL, and the key.
func (x *traced) key(name string) (string, *keys.Ring) {
	x.Helper()
	key, err := keys.Generate(keys.ID(name+"-1"), nil)
	x.must(err)
	ring, err := keys.NewRing(key)
	x.must(err)
	x.must(ring.SetCurrent(key.ID()))
	path := x.dir + "/" + name + ".json"
	x.must(keys.UpdateFile(path, func(s *keys.Set) error {
		s.Current, s.Keys = key.ID(), []*keys.Key{key}
		return nil
	}))
	return "file://" + path, ring
}

// bot runs a consumer of a queue until the test ends.
func (x *traced) bot(broker driver.Broker, name string, ring *keys.Ring, h worker.Handler) {
	x.Helper()
	var c consumer.Config
	x.must(service.Load(&c, map[string]string{
		"BROKER_URL": "of the test", "QUEUE": name, "KEYS_URL": "of the test", "NONCES_URL": "of the test", "SESSION_IDLE": "20ms",
	}))
	store, err := replay.NewMemory(nil)
	x.must(err)
	b, err := consumer.New(x.Context(), &c, consumer.Parts{
		Broker: broker, Keys: ring, ReplayStore: store, Handler: h, Telemetry: x.telemetry(), Log: x.log,
	})
	x.must(err)
	ctx, stop := context.WithCancel(x.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	x.Cleanup(func() {
		stop()
		x.must(<-done)
		x.must(b.Close(context.Background()))
	})
}

// router serves one over a SQLite file and returns where.
func (x *traced) router(file string, keysURL map[string]string, change func(*router.Config)) string {
	x.Helper()
	environ := map[string]string{"BROKER_URL": "sqlite://" + file, "WEBHOOK_SECRET": secret}
	for variable, url := range keysURL {
		environ[variable+"_KEYS_URL"] = url
	}
	var c router.Config
	x.must(service.Load(&c, environ))
	if change != nil {
		change(&c)
	}
	r, err := router.Open(x.Context(), &c, x.telemetry(), x.log)
	x.must(err)
	s := httptest.NewServer(r.Handler())
	x.Cleanup(func() {
		s.Close()
		x.must(r.Close(context.Background()))
	})
	return s.URL + router.Path
}

// tracker is a Tracker that tells of its tasks, each within a span.
type tracker struct {
	tracer trace.Tracer
	tasks  chan arrival
}

type arrival struct {
	task consumer.Task
	span trace.SpanContext
}

func (t *tracker) Do(ctx context.Context, task consumer.Task) error {
	ctx, span := t.tracer.Start(ctx, "create ticket")
	span.End()
	t.tasks <- arrival{task, trace.SpanContextFromContext(ctx)}
	return nil
}

// From the HTTP request, through SQLite to a bot that passes it on, through Service
// Bus to the bot that acts on it: one trace, each step the child of the one before.
// Each program has its own keys, provider and client; what they share is what
// travels in the messages.
func TestOneTraceOverTwoBrokers(t *testing.T) {
	t.Parallel()
	x := newTraced(t)
	pulls, pullsRing := x.key("task-tactician")
	issues, _ := x.key("merge-warden")
	pushes, _ := x.key("spec-sentinel")
	_, nextRing := x.key("tickets")

	first := x.dir + "/first.db"
	url := x.router(first, map[string]string{"TASK_TACTICIAN": pulls, "MERGE_WARDEN": issues, "SPEC_SENTINEL": pushes}, nil)

	// The second broker speaks AMQP over TCP.
	emulator, err := sbemulator.Start(nil)
	x.must(err)
	t.Cleanup(func() { _ = emulator.Close() })
	x.must(emulator.CreateQueue("tickets", &sbemulator.QueueOptions{RequiresSession: true}))
	second := func() driver.Broker {
		b, err := sbqueue.FromConnectionString(emulator.ConnectionString(), &sbqueue.Options{
			Default: sbqueue.QueueOptions{Sessions: true, Retention: time.Hour},
		})
		x.must(err)
		return b
	}

	// The last bot.
	work := &tracker{sdktrace.NewTracerProvider(sdktrace.WithSyncer(unclosed{x.spans})).Tracer("test"), make(chan arrival, 1)}
	x.bot(second(), "tickets", nextRing, consumer.Handler("tickets", work))

	// The bot between the brokers opens what it receives, and seals it anew.
	telemetry := x.telemetry()
	observer, err := telemetry.Observer("sb://x/")
	x.must(err)
	onward, err := queue.New(second(), &queue.Options{Crypto: queue.CryptoConfig{Enabled: true}, Keys: nextRing, Observer: observer, Logger: x.log})
	x.must(err)
	t.Cleanup(func() { x.must(onward.Close(context.Background())) })
	sender, err := onward.Sender(t.Context(), "tickets", nil)
	x.must(err)
	broker, err := sqlitequeue.Open(t.Context(), first, nil)
	x.must(err)
	x.bot(broker, "task-tactician", pullsRing, worker.HandlerFunc(func(ctx context.Context, d *queue.Delivery) error {
		_, err := sender.Send(ctx, &queue.Message{ID: d.ID, SessionID: d.SessionID, ContentType: d.ContentType, Attributes: d.Attributes, Body: d.Body})
		return err
	}))

	hook := hooks.Hook{Event: "pull_request", Delivery: "72d3162e-cc78-11e3-81ab-4c9367dc0958",
		Body: []byte(`{"action":"opened","repository":{"full_name":"octo/hello"},"pull_request":{"number":42}}`)}
	a, err := hooks.Post(t.Context(), http.DefaultClient, url, secret, &hook)
	if err != nil || a.Status != http.StatusAccepted {
		t.Fatalf("%d %s, %v", a.Status, a.Text, err)
	}
	var last arrival
	select {
	case last = <-work.tasks:
	case <-time.After(3 * time.Minute): // real time: processes of two brokers
		t.Fatal("nothing arrived")
	}
	if last.task.ID != hook.Delivery || last.task.SHA256 != hook.SHA256() || !last.task.Encrypted || last.task.KeyID != "tickets-1" {
		t.Errorf("the last bot got %+v", last.task)
	}

	want := []string{"POST /webhook", "send task-tactician", "process task-tactician", "send tickets", "process tickets", "create ticket"}
	kinds := []trace.SpanKind{
		trace.SpanKindServer, trace.SpanKindProducer, trace.SpanKindConsumer,
		trace.SpanKindProducer, trace.SpanKindConsumer, trace.SpanKindInternal,
	}
	path := x.path(last.span, len(want))
	var names []string
	for i, s := range path {
		names = append(names, s.Name)
		if s.SpanContext.TraceID() != last.span.TraceID() {
			t.Errorf("%s is in another trace", s.Name)
		}
		if i < len(kinds) && s.SpanKind != kinds[i] {
			t.Errorf("%s is of kind %v, want %v", s.Name, s.SpanKind, kinds[i])
		}
	}
	if !slices.Equal(names, want) {
		t.Fatalf("from root to handler: %q, want %q", names, want)
	}
	if path[0].Parent.IsValid() {
		t.Error("the request's span has a parent")
	}
}

// path waits for the spans from the root down to the one given: a span is there
// when it has ended, and that of a handler ends after its message was settled.
func (x *traced) path(last trace.SpanContext, n int) []tracetest.SpanStub {
	x.Helper()
	deadline := time.Now().Add(time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		byID := make(map[trace.SpanID]tracetest.SpanStub)
		for _, s := range x.spans.GetSpans() {
			byID[s.SpanContext.SpanID()] = s
		}
		var path []tracetest.SpanStub
		for s, ok := byID[last.SpanID()]; ok; s, ok = byID[s.Parent.SpanID()] {
			path = append([]tracetest.SpanStub{s}, path...)
		}
		if len(path) >= n || time.Now().After(deadline) {
			return path
		}
		<-tick.C
	}
}

// A traceparent of the internet is linked to, one of our own proxy is continued.
func TestForeignTrace(t *testing.T) {
	t.Parallel()
	for _, trust := range []bool{false, true} {
		x := newTraced(t)
		pulls, _ := x.key("task-tactician")
		issues, _ := x.key("merge-warden")
		pushes, _ := x.key("spec-sentinel")
		url := x.router(x.dir+"/queues.db", map[string]string{"TASK_TACTICIAN": pulls, "MERGE_WARDEN": issues, "SPEC_SENTINEL": pushes},
			func(c *router.Config) { c.TrustTrace = trust })
		q, err := hooks.Request(t.Context(), url, secret, &hooks.Hook{Event: "push", Delivery: "1", Body: []byte(`{"repository":{"full_name":"octo/hello"}}`)})
		x.must(err)
		q.Header.Set("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
		a, err := hooks.Do(http.DefaultClient, q)
		if err != nil || a.Status != http.StatusAccepted {
			t.Fatalf("%d %s, %v", a.Status, a.Text, err)
		}
		var sent trace.SpanContext
		for _, s := range x.spans.GetSpans() {
			if s.Name == "send spec-sentinel" {
				sent = s.SpanContext
			}
		}
		root := x.path(sent, 2)[0]
		foreign := root.Parent.IsValid()
		linked := len(root.Links) == 1 && root.Links[0].SpanContext.TraceID().String() == "0af7651916cd43dd8448eb211c80319c"
		if foreign != trust || linked == trust {
			t.Errorf("trusted %v: continued %v, linked %v", trust, foreign, linked)
		}
	}
}
