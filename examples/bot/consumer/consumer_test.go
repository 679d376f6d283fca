package consumer_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/examples/bot/consumer"
	"github.com/queue-runtime/queue/examples/internal/hooks"
	"github.com/queue-runtime/queue/examples/internal/service"
	"github.com/queue-runtime/queue/queuetest"
)

// doer is a function as a Tracker.
type doer func(context.Context, consumer.Task) error

func (f doer) Do(ctx context.Context, t consumer.Task) error { return f(ctx, t) }

// fixture sends to the queue of a bot that New makes over a broker in memory.
type fixture struct {
	*queuetest.Fixture
	*testing.T
	sender *queue.Sender
	log    *bytes.Buffer
}

const queueName = "task-tactician"

func newFixture(t *testing.T) *fixture {
	f := &fixture{Fixture: queuetest.New(t, nil), T: t, log: &bytes.Buffer{}}
	var err error
	if f.sender, err = f.Client.Sender(t.Context(), queueName, nil); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fixture) send(id, event, body string) {
	f.T.Helper()
	_, err := f.sender.Send(f.Context(), &queue.Message{
		ID: id, SessionID: "octo/hello:42", ContentType: "application/json",
		Attributes: map[string]string{"github-event": event}, Body: []byte(body),
	})
	if err != nil {
		f.T.Fatal(err)
	}
}

// start runs the bot with that tracker and returns how to end it.
func (f *fixture) start(t consumer.Tracker) (stop func() error) {
	f.T.Helper()
	var c consumer.Config
	err := service.Load(&c, map[string]string{
		"BROKER_URL": "mem://", "QUEUE": queueName, "KEYS_URL": "of the test", "NONCES_URL": "of the test",
		"MAX_MESSAGE_AGE": "1h", "SESSION_IDLE": "10ms",
	})
	if err != nil {
		f.T.Fatal(err)
	}
	telemetry, err := service.NewTelemetryWith(nil)
	if err != nil {
		f.T.Fatal(err)
	}
	var mu sync.Mutex
	log := service.NewLogger(writer(func(b []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return f.log.Write(b)
	}), queueName, c.LogLevel)
	b, err := consumer.New(f.Context(), &c, consumer.Parts{
		Broker: f.Broker, Keys: f.Keys, ReplayStore: f.ReplayStore, Handler: consumer.Handler(queueName, t), Telemetry: telemetry, Log: log,
	})
	if err != nil {
		f.T.Fatal(err)
	}
	ctx, cancel := context.WithCancel(f.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	return sync.OnceValue(func() error {
		cancel()
		return errors.Join(<-done, telemetry.Close(context.Background()))
	})
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }

const opened = `{"action":"opened","repository":{"full_name":"octo/hello"},"pull_request":{"number":42}}`

// What is under way when the bot is told to end is finished, and completed.
func TestDrain(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.send("one", "pull_request", opened)
	f.send("two", "pull_request", opened)
	begun, finish := make(chan struct{}), make(chan struct{})
	var did []string
	stop := f.start(doer(func(ctx context.Context, task consumer.Task) error {
		did = append(did, task.ID)
		close(begun)
		select {
		case <-finish:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}))
	<-begun
	ended := make(chan error, 1)
	go func() { ended <- stop() }()
	select {
	case err := <-ended:
		t.Fatalf("it ended with %v while a handler ran", err)
	case <-time.After(50 * time.Millisecond): // real time: that nothing happens
	}
	close(finish)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if len(did) != 1 || did[0] != "one" {
		t.Errorf("it did %q, want the first alone", did)
	}
	if rest := f.Waiting(f.Context(), queueName); len(rest) != 1 || rest[0].ID != "two" {
		t.Errorf("%d messages wait, want the second", len(rest))
	}
}

// A webhook that no bot can read becomes a dead letter; one whose task fails comes
// again. Neither's text gets into the log.
func TestFailures(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.send("unreadable", "pull_request", `{"pull_request":"private-text"}`)
	f.send("flaky", "pull_request", opened)
	times := make(chan int, 10)
	stop := f.start(doer(func(_ context.Context, task consumer.Task) error {
		times <- task.Delivery
		if task.Delivery == 1 {
			return errors.New("private-text")
		}
		return nil
	}))
	for _, want := range []int{1, 2} {
		if got := <-times; got != want {
			t.Errorf("delivery %d, want %d", got, want)
		}
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	dead := f.DeadLettered(f.Context(), queueName)
	if len(dead) != 1 || dead[0].ID != "unreadable" {
		t.Errorf("%d dead letters, want the unreadable one", len(dead))
	}
	if rest := f.Waiting(f.Context(), queueName); len(rest) != 0 {
		t.Errorf("%d messages wait", len(rest))
	}
	if strings.Contains(f.log.String(), "private-text") {
		t.Errorf("the log shows what was in a webhook: %s", f.log)
	}
}

// A task that could not be written down is not done: its message must come again.
func TestJournalFails(t *testing.T) {
	t.Parallel()
	full := errors.New("no space left")
	journal := consumer.NewJournal(writer(func([]byte) (int, error) { return 0, full }))
	d := &queue.Delivery{Received: queue.Received{Message: queue.Message{
		ID: "1", Body: []byte(opened), Attributes: map[string]string{"github-event": "pull_request"},
	}}}
	if err := consumer.Handler("bot", journal).Handle(t.Context(), d); !errors.Is(err, full) {
		t.Errorf("the handler returned %v, want %v", err, full)
	}
}

// Each real webhook makes a task, whole, whichever bot it goes to.
func TestRealWebhooks(t *testing.T) {
	t.Parallel()
	all, err := hooks.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	h := consumer.Handler("bot", consumer.NewJournal(&out))
	for i := range all {
		d := &queue.Delivery{Received: queue.Received{Message: queue.Message{
			ID: all[i].Delivery, Body: all[i].Body, Attributes: map[string]string{"github-event": all[i].Event},
		}}}
		if err := h.Handle(t.Context(), d); err != nil {
			t.Errorf("%s: %v", all[i].Event, err)
		}
	}
	want := map[string]string{
		"pull_request":        "open a task for pull request 1",
		"pull_request_review": "update the task of pull request 8",
		"issues":              "look whether issue 2 holds a merge back",
		"push":                "check the specification against refs/heads/master (1 commits)",
		"release":             "note release published",
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != len(all) {
		t.Fatalf("%d lines for %d webhooks", len(lines), len(all))
	}
	for i, line := range lines {
		var task consumer.Task
		if err := json.Unmarshal([]byte(line), &task); err != nil {
			t.Fatal(err)
		}
		if task.ID != all[i].Delivery || task.SHA256 != all[i].SHA256() || task.Event != all[i].Event {
			t.Errorf("%s became %s", all[i].Event, line)
		}
		if w, ok := want[task.Event]; ok && task.What != w {
			t.Errorf("%s: %q, want %q", task.Event, task.What, w)
		}
	}
}

// Whatever is wrong is named by its variable, and nothing is weaker than was asked
// for without a word.
func TestBadConfiguration(t *testing.T) {
	t.Parallel()
	good := map[string]string{"BROKER_URL": "mem://", "QUEUE": "q", "KEYS_URL": "env://BOT_KEYS", "NONCES_URL": "mem://"}
	for name, x := range map[string]struct {
		change map[string]string
		want   string
	}{
		"no queue":              {map[string]string{"QUEUE": ""}, "QUEUE is empty"},
		"no nonces":             {map[string]string{"NONCES_URL": ""}, "NONCES_URL is empty"},
		"no keys, and reject":   {map[string]string{"KEYS_URL": "none"}, "the bot could receive nothing"},
		"a policy of no name":   {map[string]string{"PLAINTEXT": "s3cret"}, "PLAINTEXT is not one of reject, allow_with_alert, allow"},
		"no concurrency":        {map[string]string{"CONCURRENCY": "0"}, "CONCURRENCY must be"},
		"a negative age":        {map[string]string{"MAX_MESSAGE_AGE": "-1s"}, "MAX_MESSAGE_AGE is negative"},
		"no time for a session": {map[string]string{"SESSION_IDLE": "0s"}, "SESSION_IDLE must be"},
	} {
		environ := map[string]string{}
		for k, v := range good {
			environ[k] = v
		}
		for k, v := range x.change {
			environ[k] = v
		}
		err := service.Load(new(consumer.Config), environ)
		if err == nil || !strings.Contains(err.Error(), x.want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v, want %q", name, err, x.want)
		}
	}
	// A replay store within the broker's reach is refused when it is opened.
	file := t.TempDir() + "/queues.db"
	err := consumer.Run(t.Context(), map[string]string{
		"BROKER_URL": "sqlite://" + file, "NONCES_URL": "sqlite://" + file, "KEYS_URL": "none", "PLAINTEXT": "allow",
		"QUEUE": "q", "ADMIN_LISTEN": "127.0.0.1:0",
	}, &bytes.Buffer{}, &bytes.Buffer{})
	if err == nil || !strings.Contains(err.Error(), "reach") {
		t.Errorf("one file for queue and replay store: %v", err)
	}
}

// The program runs, tells how it is, and ends in order; a bot without keys is the
// first phase of a migration.
func TestRun(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	lines := make(chan map[string]any, 16)
	done := make(chan error, 1)
	go func() {
		done <- consumer.Run(ctx, map[string]string{
			"BROKER_URL": "mem://?retention=1h", "NONCES_URL": "none", "KEYS_URL": "none", "PLAINTEXT": "allow",
			"QUEUE": "q", "ADMIN_LISTEN": "127.0.0.1:0",
		}, &bytes.Buffer{}, writer(func(b []byte) (int, error) {
			var line map[string]any
			if json.Unmarshal(b, &line) == nil {
				lines <- line
			}
			return len(b), nil
		}))
	}()
	var address string
	for line := range lines {
		if line["msg"] == "Listening" {
			address, _ = line["address"].(string)
		}
		if line["msg"] == "Ready" {
			break
		}
	}
	get := func(path string) string {
		q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		a, err := hooks.Do(http.DefaultClient, q)
		if err != nil || a.Status != http.StatusOK {
			t.Fatalf("%s: %d %s, %v", path, a.Status, a.Text, err)
		}
		return a.Text
	}
	if got := get("/healthz") + get("/readyz"); got != "okready" {
		t.Errorf("health and readiness: %q", got)
	}
	if got := get("/metrics"); !strings.Contains(got, "go_goroutines") {
		t.Errorf("metrics: %q", got)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
