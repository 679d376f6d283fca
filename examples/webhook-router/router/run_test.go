package router

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/queue-runtime/queue/examples/internal/hooks"
)

// program runs the router and returns where it listens.
func program(t *testing.T, ctx context.Context, environ map[string]string) (addresses map[string]string, done <-chan error) {
	t.Helper()
	r, w := io.Pipe()
	result := make(chan error, 1)
	go func() {
		err := Run(ctx, environ, w)
		_ = w.Close()
		result <- err
	}()
	addresses = make(map[string]string)
	ready := make(chan struct{})
	go func() { // ends with the program
		s := bufio.NewScanner(r)
		for s.Scan() {
			var line struct{ Msg, Name, Address string }
			if json.Unmarshal(s.Bytes(), &line) != nil {
				continue
			}
			switch line.Msg {
			case "Listening":
				addresses[line.Name] = line.Address
			case "Ready":
				close(ready)
			}
		}
	}()
	select {
	case <-ready:
	case err := <-result:
		t.Fatalf("it ended: %v", err)
	}
	return addresses, result
}

func environment(t *testing.T) map[string]string {
	t.Helper()
	environ := map[string]string{
		"BROKER_URL":     "sqlite://" + filepath.ToSlash(filepath.Join(t.TempDir(), "queues.db")) + "?dedup_window=1h",
		"WEBHOOK_SECRET": secret, "ADMIN_LISTEN": "127.0.0.1:0", "LISTEN": "127.0.0.1:0",
	}
	for variable, name := range map[string]string{
		"TASK_TACTICIAN": "task-tactician", "MERGE_WARDEN": "merge-warden", "SPEC_SENTINEL": "spec-sentinel",
	} {
		environ[variable+"_KEYS_URL"], _ = keyFile(t, name)
	}
	return environ
}

func get(t *testing.T, url string) hooks.Answer {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	a, err := hooks.Do(http.DefaultClient, q)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// A webhook that is still arriving when the router is told to end is taken; the
// router is not ready meanwhile, but well, and takes no new connection.
func TestGracefulStop(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	addresses, done := program(t, ctx, environment(t))
	public, admin := addresses["webhooks"], "http://"+addresses["admin"]
	if a := get(t, admin+"/readyz"); a.Status != http.StatusOK {
		t.Fatalf("not ready: %d %s", a.Status, a.Text)
	}
	if a := get(t, "http://"+public+"/metrics"); a.Status != http.StatusNotFound {
		t.Errorf("the public address serves /metrics: %d", a.Status)
	}

	c, err := net.Dial("tcp", public)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // of the client
	body := string(pullRequest.Body)
	_, err = fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nX-GitHub-Event: pull_request\r\nX-GitHub-Delivery: 1\r\n"+
		"X-Hub-Signature-256: %s\r\nContent-Length: %d\r\n\r\n%s", Path, hooks.Sign(secret, pullRequest.Body), len(body), body[:10])
	if err != nil {
		t.Fatal(err)
	}
	// The server has the request when its metrics say so; a connection that has
	// sent nothing yet would be closed.
	for !strings.Contains(scrape(t, admin), "webhook_in_flight 1") {
		if t.Context().Err() != nil {
			t.Fatal("the request did not begin")
		}
	}
	stop()
	for get(t, admin+"/readyz").Status == http.StatusOK {
		if t.Context().Err() != nil {
			t.Fatal("it stays ready")
		}
	}
	if a := get(t, admin+"/healthz"); a.Status != http.StatusOK {
		t.Errorf("not well while it stops: %d", a.Status)
	}
	if _, err := io.WriteString(c, body[10:]); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close() //nolint:errcheck // of the client
	if answer.StatusCode != http.StatusAccepted {
		t.Errorf("the webhook was answered with %s", answer.Status)
	}
	if err := <-done; err != nil {
		t.Errorf("it ended with %v", err)
	}
	if _, err := net.Dial("tcp", public); err == nil {
		t.Error("it still listens")
	}
}

// Until the load balancer has seen that the router is not ready, webhooks on new
// connections are taken.
func TestStopDelay(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	environ := environment(t)
	environ["STOP_DELAY"] = "2s"
	addresses, done := program(t, ctx, environ)
	stop()
	for get(t, "http://"+addresses["admin"]+"/readyz").Status == http.StatusOK {
		if t.Context().Err() != nil {
			t.Fatal("it stays ready")
		}
	}
	client := &http.Client{Transport: &http.Transport{}} // without connections of others
	defer client.CloseIdleConnections()
	if a, err := hooks.Post(t.Context(), client, "http://"+addresses["webhooks"]+Path, secret, &pullRequest); err != nil || a.Status != http.StatusAccepted {
		t.Errorf("%d %s, %v", a.Status, a.Text, err)
	}
	if err := <-done; err != nil {
		t.Errorf("it ended with %v", err)
	}
	if _, err := net.Dial("tcp", addresses["webhooks"]); err == nil {
		t.Error("it still listens")
	}
}

// scrape returns all of /metrics.
func scrape(t *testing.T, admin string) string {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, admin+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close() //nolint:errcheck // of the client
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
