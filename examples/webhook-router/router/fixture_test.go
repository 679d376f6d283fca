package router

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/examples/internal/hooks"
	"github.com/queue-runtime/queue/examples/internal/service"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/queuetest"
	"github.com/queue-runtime/queue/replay"
)

const secret = "a secret of GitHub and us"

// fixture is a router that is served, over a broker in memory that can be made to
// fail.
type fixture struct {
	testing.TB
	config    *Config
	router    *Router
	telemetry *service.Telemetry
	broker    *queuetest.Proxy
	url       string
	keys      map[string]*keys.Key // by queue
}

// keyFile writes a fresh key and returns its URL.
func keyFile(t testing.TB, name string) (string, *keys.Key) {
	t.Helper()
	key, err := keys.Generate(keys.ID(name+"-1"), nil)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "keys.json")
	err = keys.UpdateFile(path, func(s *keys.Set) error {
		s.Current, s.Keys = key.ID(), []*keys.Key{key}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return "file://" + filepath.ToSlash(path), key
}

// config returns what the environment would, with fresh keys.
func newConfig(t testing.TB) (*Config, map[string]*keys.Key) {
	t.Helper()
	environ := map[string]string{"BROKER_URL": "mem://", "WEBHOOK_SECRET": secret}
	made := make(map[string]*keys.Key)
	for variable, name := range map[string]string{
		"TASK_TACTICIAN": "task-tactician", "MERGE_WARDEN": "merge-warden", "SPEC_SENTINEL": "spec-sentinel",
	} {
		environ[variable+"_KEYS_URL"], made[name] = keyFile(t, name)
	}
	var c Config
	if err := service.Load(&c, environ); err != nil {
		t.Fatal(err)
	}
	return &c, made
}

// serve starts a router. change may be nil.
func serve(t testing.TB, change func(*Config)) *fixture {
	t.Helper()
	f := &fixture{TB: t}
	f.config, f.keys = newConfig(t)
	if change != nil {
		change(f.config)
	}
	f.broker = queuetest.Wrap(memqueue.New(&memqueue.Options{Default: memqueue.QueueOptions{DedupWindow: time.Hour, Retention: time.Hour}}), 1)
	var err error
	if f.telemetry, err = service.NewTelemetryWith(nil); err != nil {
		t.Fatal(err)
	}
	f.start(f.broker, slog.New(slog.DiscardHandler))
	return f
}

func (f *fixture) start(broker driver.Broker, log *slog.Logger) {
	f.Helper()
	r, err := New(f.Context(), f.config, broker, f.telemetry, log)
	if err != nil {
		f.Fatal(err)
	}
	f.router = r
	s := httptest.NewServer(r.Handler())
	f.url = s.URL + Path
	f.Cleanup(func() {
		s.Close()
		if err := r.Close(context.Background()); err != nil {
			f.Error(err)
		}
		if err := f.telemetry.Close(context.Background()); err != nil {
			f.Error(err)
		}
	})
}

// request returns a signed request that change has changed.
func (f *fixture) request(h *hooks.Hook, change func(*http.Request)) *http.Request {
	f.Helper()
	q, err := hooks.Request(f.Context(), f.url, secret, h)
	if err != nil {
		f.Fatal(err)
	}
	if change != nil {
		change(q)
	}
	return q
}

func (f *fixture) do(q *http.Request) hooks.Answer {
	f.Helper()
	a, err := hooks.Do(http.DefaultClient, q)
	if err != nil {
		f.Fatal(err)
	}
	return a
}

func (f *fixture) post(h *hooks.Hook) hooks.Answer {
	f.Helper()
	return f.do(f.request(h, nil))
}

// scrape returns what /metrics shows.
func (f *fixture) scrape() string {
	f.Helper()
	w := httptest.NewRecorder()
	f.telemetry.Metrics.ServeHTTP(w, httptest.NewRequestWithContext(f.Context(), http.MethodGet, "/metrics", nil))
	return w.Body.String()
}

// await waits until a scrape has that text.
func (f *fixture) await(text string) {
	f.Helper()
	patience := time.NewTimer(30 * time.Second) // real time: of HTTP
	defer patience.Stop()
	for !strings.Contains(f.scrape(), text) {
		select {
		case <-patience.C:
			f.Fatalf("the scrape does not get %s", text)
		default:
		}
	}
}

// client returns a client of the bot with that key.
func (f *fixture) client(key string) *queue.Client {
	f.Helper()
	ring, err := keys.NewRing(f.keys[key])
	if err != nil {
		f.Fatal(err)
	}
	store, err := replay.NewMemory(nil)
	if err != nil {
		f.Fatal(err)
	}
	o := queue.Strict(ring, store)
	o.Logger = slog.New(slog.DiscardHandler)
	c, err := queue.New(f.broker, o)
	if err != nil {
		f.Fatal(err)
	}
	return c
}

// receive opens what lies in a queue with the key of that queue, and takes it.
func (f *fixture) receive(name string) []*queue.Delivery {
	f.Helper()
	c := f.client(name)
	r, err := c.Receiver(f.Context(), name, &queue.ReceiverOptions{Wait: time.Millisecond})
	if err != nil {
		f.Fatal(err)
	}
	var all []*queue.Delivery
	for { // a session gives one after the other
		some, err := r.Receive(f.Context(), 100)
		if errors.Is(err, queue.ErrNoMessage) {
			return all
		}
		if err != nil {
			f.Fatal(err)
		}
		for _, d := range some {
			if err := d.Complete(f.Context()); err != nil {
				f.Fatal(err)
			}
		}
		all = append(all, some...)
	}
}

// empty fails where anything lies in any queue.
func (f *fixture) empty() {
	f.Helper()
	for name := range f.keys {
		if all := f.receive(name); len(all) > 0 {
			f.Errorf("%d messages in %s", len(all), name)
		}
	}
}

var pullRequest = hooks.Hook{
	Event: "pull_request", Delivery: "72d3162e-cc78-11e3-81ab-4c9367dc0958",
	Body: []byte(`{"action":"opened","repository":{"full_name":"octo/hello"},"pull_request":{"number":42}}`),
}
