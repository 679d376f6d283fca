package router

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/examples/internal/hooks"
	"github.com/queue-runtime/queue/examples/internal/service"
	"github.com/queue-runtime/queue/queuetest"
)

// What is taken arrives as GitHub sent it, with all that the bots go by.
func TestTaken(t *testing.T) {
	t.Parallel()
	f := serve(t, nil)
	a := f.post(&pullRequest)
	if a.Status != http.StatusAccepted {
		t.Fatalf("%d %s", a.Status, a.Text)
	}
	var said accepted
	if err := json.Unmarshal([]byte(a.Text), &said); err != nil || said.Delivery != pullRequest.Delivery || said.Queue != "task-tactician" {
		t.Errorf("the answer is %s", a.Text)
	}
	all := f.receive("task-tactician")
	if len(all) != 1 {
		t.Fatalf("%d messages", len(all))
	}
	d := all[0]
	if d.ID != pullRequest.Delivery || d.SessionID != "octo/hello:42" || d.ContentType != "application/json" ||
		d.Attributes[EventAttribute] != "pull_request" || string(d.Body) != string(pullRequest.Body) || !d.Encrypted || d.KeyID != "task-tactician-1" {
		t.Errorf("received %+v", d.Received)
	}
	f.empty()
	for _, m := range f.broker.Captured("task-tactician") {
		if strings.Contains(string(m.Body), "opened") {
			t.Error("the broker can read the body")
		}
	}
}

// Nothing that is refused reaches a queue, and the sender learns why.
func TestRefused(t *testing.T) {
	t.Parallel()
	f := serve(t, func(c *Config) { c.MaxBody = 4096 })
	mac := hmac.New(sha1.New, []byte(secret))
	mac.Write(pullRequest.Body)
	sha1Signature := "sha1=" + hex.EncodeToString(mac.Sum(nil))
	large := hooks.Hook{Event: "push", Delivery: "1", Body: []byte(`{"ref":"` + strings.Repeat("x", 5000) + `"}`)}
	resign := func(q *http.Request, body string) {
		q.Body, q.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
		q.Header.Set("X-Hub-Signature-256", hooks.Sign(secret, []byte(body)))
	}
	for _, c := range []struct {
		name   string
		hook   *hooks.Hook
		change func(*http.Request)
		status int
		text   string
	}{
		{"no signature", nil, func(q *http.Request) { q.Header.Del("X-Hub-Signature-256") }, 401, "no X-Hub-Signature-256"},
		{"SHA-1 alone", nil, func(q *http.Request) {
			q.Header.Del("X-Hub-Signature-256")
			q.Header.Set("X-Hub-Signature", sha1Signature)
		}, 401, "SHA-1, is not accepted"},
		{"SHA-1 in the other header", nil, func(q *http.Request) { q.Header.Set("X-Hub-Signature-256", sha1Signature) }, 401, "does not match"},
		{"another secret", nil, func(q *http.Request) {
			q.Header.Set("X-Hub-Signature-256", hooks.Sign("another secret, just as long", pullRequest.Body))
		}, 401, "does not match"},
		{"the empty secret", nil, func(q *http.Request) {
			q.Header.Set("X-Hub-Signature-256", hooks.Sign("", pullRequest.Body))
		}, 401, "does not match"},
		{"a body that was changed", nil, func(q *http.Request) {
			body := strings.Replace(string(pullRequest.Body), "42", "43", 1)
			q.Body = io.NopCloser(strings.NewReader(body))
		}, 401, "does not match"},
		{"a signature cut short", nil, func(q *http.Request) {
			q.Header.Set("X-Hub-Signature-256", q.Header.Get("X-Hub-Signature-256")[:20])
		}, 401, "does not match"},
		{"no hexadecimal", nil, func(q *http.Request) { q.Header.Set("X-Hub-Signature-256", "sha256=zz") }, 401, "does not match"},
		{"too large", &large, nil, 413, "larger than 4096 bytes"},
		{"too large, of unknown length", &large, func(q *http.Request) { q.ContentLength = -1 }, 413, "larger than 4096 bytes"},
		{"a form", nil, func(q *http.Request) { q.Header.Set("Content-Type", "application/x-www-form-urlencoded") }, 415, "application/json"},
		{"no event", nil, func(q *http.Request) { q.Header.Del("X-GitHub-Event") }, 400, "X-GitHub-Event"},
		{"no delivery", nil, func(q *http.Request) { q.Header.Del("X-GitHub-Delivery") }, 400, "X-GitHub-Delivery"},
		{"an event with spaces", nil, func(q *http.Request) { q.Header.Set("X-GitHub-Event", "pull request") }, 400, "X-GitHub-Event"},
		{"a delivery that is too long", nil, func(q *http.Request) { q.Header.Set("X-GitHub-Delivery", strings.Repeat("a", 65)) }, 400, "X-GitHub-Delivery"},
		{"no JSON", nil, func(q *http.Request) { resign(q, "hello") }, 400, "no webhook"},
		{"a repository of another form", nil, func(q *http.Request) { resign(q, `{"repository":{"full_name":[]}}`) }, 400, "no webhook"},
		{"another method", nil, func(q *http.Request) { q.Method = http.MethodPut }, 405, ""},
		{"another path", nil, func(q *http.Request) { q.URL.Path = "/" }, 404, ""},
	} {
		hook := c.hook
		if hook == nil {
			hook = &pullRequest
		}
		a := f.do(f.request(hook, c.change))
		if a.Status != c.status || !strings.Contains(a.Text, c.text) {
			t.Errorf("%s: %d %q, want %d and %q", c.name, a.Status, a.Text, c.status, c.text)
		}
	}
	f.empty()
}

// The webhook's secret can be changed without losing a webhook.
func TestPreviousSecret(t *testing.T) {
	t.Parallel()
	f := serve(t, func(c *Config) {
		c.Previous = c.Secret
		c.Secret = service.NewSecret("the next secret of GitHub and us")
	})
	if a := f.post(&pullRequest); a.Status != http.StatusAccepted {
		t.Errorf("under the previous secret: %d %s", a.Status, a.Text)
	}
	a := f.do(f.request(&pullRequest, func(q *http.Request) {
		q.Header.Set("X-Hub-Signature-256", hooks.Sign("the next secret of GitHub and us", pullRequest.Body))
	}))
	if a.Status != http.StatusAccepted {
		t.Errorf("under the secret: %d %s", a.Status, a.Text)
	}
}

// A delivery that comes again makes no second message.
func TestRepeat(t *testing.T) {
	t.Parallel()
	f := serve(t, nil)
	for range 3 {
		if a := f.post(&pullRequest); a.Status != http.StatusAccepted {
			t.Fatalf("%d %s", a.Status, a.Text)
		}
	}
	other := pullRequest.Again()
	f.post(&other)
	all := f.receive("task-tactician")
	if len(all) != 2 || all[0].ID != pullRequest.Delivery || all[1].ID != other.Delivery {
		t.Errorf("%d messages, want one for each GUID", len(all))
	}
}

// An event that the router does not know goes to one bot, always the same.
func TestUnknownEvent(t *testing.T) {
	t.Parallel()
	f := serve(t, nil)
	h := hooks.Hook{Event: "brand_new", Body: []byte(`{"action":"made"}`)}
	for range 5 {
		h = h.Again()
		if a := f.post(&h); a.Status != http.StatusAccepted {
			t.Fatalf("%d %s", a.Status, a.Text)
		}
	}
	var got []int
	for name := range f.keys {
		all := f.receive(name)
		got = append(got, len(all))
		for _, d := range all {
			if d.SessionID != d.ID {
				t.Errorf("without a repository the session is %q, want the delivery", d.SessionID)
			}
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, []int{0, 0, 5}) {
		t.Errorf("the queues have %d messages", got)
	}
}

// While the broker is away senders are told to come again, and nothing is lost.
func TestBrokerDown(t *testing.T) {
	t.Parallel()
	f := serve(t, func(c *Config) { c.SendTimeout = 3 * time.Second })
	for _, c := range []struct {
		name  string
		fault queuetest.Fault
		after string
	}{
		{"unreachable", queuetest.Fault{On: queuetest.Send, Err: queuetest.Unavailable()}, "5"},
		{"asks to wait", queuetest.Fault{On: queuetest.Send, Err: queuetest.Throttle(17500 * time.Millisecond)}, "18"},
		{"does not answer", queuetest.Fault{On: queuetest.Send, Stall: true}, "5"},
		{"took it, and the answer was lost", queuetest.Fault{On: queuetest.Send, LostAnswer: queuetest.Unavailable()}, "5"},
	} {
		f.broker.Inject(c.fault)
		a := f.post(&pullRequest)
		if a.Status != http.StatusServiceUnavailable || a.Header.Get("Retry-After") != c.after {
			t.Errorf("%s: %d, Retry-After %q, want 503 and %q", c.name, a.Status, a.Header.Get("Retry-After"), c.after)
		}
		if f.router.Check(t.Context()) == nil {
			t.Errorf("%s: it is ready", c.name)
		}
		f.broker.Heal()
	}
	// What is the sender's fault says nothing of the broker.
	f.do(f.request(&pullRequest, func(q *http.Request) { q.Header.Del("X-GitHub-Event") }))
	if f.router.Check(t.Context()) == nil {
		t.Error("it is ready after a refusal")
	}
	if a := f.post(&pullRequest); a.Status != http.StatusAccepted {
		t.Errorf("afterwards: %d %s", a.Status, a.Text)
	}
	if err := f.router.Check(t.Context()); err != nil {
		t.Errorf("not ready afterwards: %v", err)
	}
	if all := f.receive("task-tactician"); len(all) != 1 {
		t.Errorf("%d messages, want 1", len(all))
	}
}

// What the broker itself finds too large is the sender's fault.
func TestTooLargeForTheBroker(t *testing.T) {
	t.Parallel()
	f := serve(t, nil)
	f.broker.Inject(queuetest.Fault{On: queuetest.Send, Err: driver.NewTooLarge("message", 10, 5)})
	if a := f.post(&pullRequest); a.Status != http.StatusRequestEntityTooLarge {
		t.Errorf("%d %s", a.Status, a.Text)
	}
	if err := f.router.Check(t.Context()); err != nil {
		t.Errorf("not ready: %v", err)
	}
}

// A router that gets no webhooks because it is not ready becomes ready again.
func TestReadyAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := new(Router)
		r.failed.Store(time.Now().UnixNano())
		time.Sleep(unreadyFor - time.Nanosecond)
		if r.Check(t.Context()) == nil {
			t.Error("it is ready too early")
		}
		time.Sleep(time.Nanosecond)
		if err := r.Check(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// A sender that goes away while the broker is asked says nothing of the broker, and is
// counted apart: the broker may hold the webhook all the same.
func TestSenderGone(t *testing.T) {
	t.Parallel()
	f := serve(t, nil)
	f.broker.Inject(queuetest.Fault{On: queuetest.Send, Stall: true})
	ctx, cancel := context.WithCancel(t.Context())
	q := f.request(&pullRequest, nil).WithContext(ctx)
	done := make(chan error, 1)
	go func() {
		_, err := hooks.Do(http.DefaultClient, q)
		done <- err
	}()
	f.await(`queue_crypto_encrypt_duration_seconds_count{queue="task-tactician"} 1`) // sealed, and so on its way
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatalf("the request ended with %v", err)
	}
	f.await(`webhook_deliveries_total{outcome="abandoned"} 1`)
	if err := f.router.Check(t.Context()); err != nil {
		t.Errorf("not ready: %v", err)
	}
	f.broker.Heal()
	if a := f.post(&pullRequest); a.Status != http.StatusAccepted {
		t.Errorf("once more: %d %s", a.Status, a.Text)
	}
	if all := f.receive("task-tactician"); len(all) != 1 {
		t.Errorf("%d messages, want 1", len(all))
	}
}

// Beyond MAX_IN_FLIGHT nothing is read.
func TestBusy(t *testing.T) {
	t.Parallel()
	f := serve(t, func(c *Config) { c.MaxInFlight = 1 })
	f.router.slots <- struct{}{}
	a := f.post(&pullRequest)
	if a.Status != http.StatusServiceUnavailable || a.Header.Get("Retry-After") != "1" {
		t.Errorf("%d, Retry-After %q", a.Status, a.Header.Get("Retry-After"))
	}
	<-f.router.slots
	if a := f.post(&pullRequest); a.Status != http.StatusAccepted {
		t.Errorf("afterwards: %d", a.Status)
	}
}

// What became of webhooks is counted, under the library's own names beside.
func TestMetrics(t *testing.T) {
	t.Parallel()
	f := serve(t, nil)
	f.post(&pullRequest)
	f.do(f.request(&pullRequest, func(q *http.Request) {
		q.Header.Del("X-Hub-Signature-256")
		q.Host = "label-of-an-attacker:7"
	}))
	f.do(f.request(&pullRequest, func(q *http.Request) {
		q.Method, q.URL.Path = "LABEL", "/label-of-an-attacker"
		q.Header.Set("X-GitHub-Event", "label-of-an-attacker")
	}))
	scrape := f.scrape()
	for _, want := range []string{
		`webhook_deliveries_total{outcome="accepted"} 1`,
		`webhook_deliveries_total{outcome="unsigned"} 1`,
		`queue_messages_sent_total{encrypted="true",queue="task-tactician"} 1`,
		`queue_crypto_enabled{environment="development",queue="spec-sentinel"} 1`,
		`http_server_request_duration_seconds_count{http_request_method="POST",http_response_status_code="202",http_route="/webhook"`,
	} {
		if !strings.Contains(scrape, want) {
			t.Errorf("the scrape lacks %s", want)
		}
	}
	for _, never := range []string{pullRequest.Delivery, "octo/hello", "label-of-an-attacker", "LABEL", `server_port="7"`} {
		if strings.Contains(scrape, never) {
			t.Errorf("the scrape has %q", never)
		}
	}
}

// A key store that does not answer shows in the metrics, by the queue that it is for;
// and nothing goes out unprotected.
func TestKeyStoreDown(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	refuses := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"__type":"AccessDeniedException"}`)
	}))
	defer refuses.Close()
	f := serve(t, func(c *Config) { c.PullRequestKeys = "awssm://eu-west-1/qrt/pulls?endpoint=" + refuses.URL })
	if a := f.post(&pullRequest); a.Status != http.StatusServiceUnavailable {
		t.Errorf("%d %s", a.Status, a.Text)
	}
	if all := f.broker.Captured("task-tactician"); len(all) > 0 {
		t.Errorf("%d messages were sent", len(all))
	}
	scrape := f.scrape()
	for _, want := range []string{
		`queue_crypto_errors_total{queue="task-tactician",reason="encryption_failed"} 1`,
		`queue_key_cache_fetch_duration_seconds_count{cache="task-tactician",call="CurrentKeyID",result="error"}`,
	} {
		if !strings.Contains(scrape, want) {
			t.Errorf("the scrape lacks %s", want)
		}
	}
	if f.router.Check(t.Context()) == nil {
		t.Error("it is ready")
	}
}

// With ENCRYPT=false bodies travel as they are: the first phases of a migration.
func TestWithoutEncryption(t *testing.T) {
	t.Parallel()
	f := serve(t, func(c *Config) { c.Encrypt = false })
	if a := f.post(&pullRequest); a.Status != http.StatusAccepted {
		t.Fatalf("%d %s", a.Status, a.Text)
	}
	c, err := queue.New(f.broker, &queue.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Receiver(t.Context(), "task-tactician", nil)
	if err != nil {
		t.Fatal(err)
	}
	d, err := r.ReceiveOne(t.Context())
	if err != nil || d.Encrypted || string(d.Body) != string(pullRequest.Body) {
		t.Fatalf("received %v, %v; want the body in plaintext", d, err)
	}
	if err := d.Complete(context.Background()); err != nil {
		t.Error(err)
	}
}
