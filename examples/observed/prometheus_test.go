package observed_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// server is a Prometheus process with the rules of this repository, as they are,
// evaluated twice a second.
type server struct {
	*testing.T
	url    string
	client *http.Client
}

// target is a program that is scraped: one with queues that it seals for, or one with
// a queue that it opens.
type target struct{ job, address string }

// listening finds the address in the log of Prometheus 2 and 3.
var listening = regexp.MustCompile(`msg="Listening on".* address=(\S+)`)

// startPrometheus starts Prometheus, and ends it with the test.
func startPrometheus(ctx context.Context, t *testing.T, program string, targets []target) *server {
	t.Helper()
	dir := t.TempDir()
	rules, err := filepath.Abs(folder)
	if err != nil {
		t.Fatal(err)
	}
	config := "global: {scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}\n" +
		"rule_files: [" + strconv.Quote(rules+"/recording.yml") + ", " + strconv.Quote(rules+"/alerts.yml") + "]\nscrape_configs:\n"
	for _, x := range targets {
		config += fmt.Sprintf("  - {job_name: %q, static_configs: [{targets: [%q]}]}\n", x.job, strings.TrimPrefix(x.address, "http://"))
	}
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(program, "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address=127.0.0.1:0")
	log, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	address, ended := make(chan string, 1), make(chan error, 1)
	go func() {
		var tail []string
		lines := bufio.NewScanner(log)
		for lines.Scan() {
			if m := listening.FindStringSubmatch(lines.Text()); m != nil {
				select {
				case address <- m[1]:
				default:
				}
			}
			tail = append(tail[max(0, len(tail)-9):], lines.Text())
		}
		_, _ = io.Copy(io.Discard, log) // after a line that is too long
		if err := c.Wait(); err != nil {
			ended <- fmt.Errorf("%w; it said:\n%s", err, strings.Join(tail, "\n"))
		}
		close(ended)
	}()
	s := &server{T: t, client: &http.Client{Timeout: time.Minute}}
	t.Cleanup(func() {
		s.client.CloseIdleConnections()
		_ = c.Process.Signal(syscall.SIGTERM) // it may be gone already
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Prometheus ended with %v", err)
			}
		case <-time.After(3 * time.Minute): // real time: another process
			t.Error("Prometheus does not end when it is told to")
			_ = c.Process.Kill()
			for range ended { // until it is gone
			}
		}
	})
	select {
	case a := <-address:
		s.url = "http://" + a
	case err := <-ended:
		t.Fatalf("Prometheus did not start: %v", err)
	case <-ctx.Done():
		t.Fatal("Prometheus did not listen in time")
	}
	return s
}

// get asks the API.
func (s *server) get(ctx context.Context, path string, into any) {
	s.Helper()
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path, nil)
	if err != nil {
		s.Fatal(err)
	}
	r, err := s.client.Do(q)
	if err != nil {
		s.Fatal(err)
	}
	defer func() { _ = r.Body.Close() }()
	var answer struct {
		Status, Error string
		Data          json.RawMessage
	}
	if err := json.NewDecoder(r.Body).Decode(&answer); err != nil {
		s.Fatalf("%s: %s: %v", path, r.Status, err)
	}
	if answer.Status != "success" {
		s.Fatalf("%s: %s: %s", path, r.Status, answer.Error)
	}
	if err := json.Unmarshal(answer.Data, into); err != nil {
		s.Fatalf("%s: %v", path, err)
	}
}

// holds reports whether a query has any result now.
func (s *server) holds(ctx context.Context, query string) bool {
	s.Helper()
	var data struct{ Result []json.RawMessage }
	s.get(ctx, "/api/v1/query?query="+url.QueryEscape(query), &data)
	return len(data.Result) > 0
}

// until waits for a query to have a result.
func (s *server) until(ctx context.Context, query string) {
	s.Helper()
	s.eventually(ctx, query, func() bool { return s.holds(ctx, query) })
}

func (s *server) eventually(ctx context.Context, what string, f func() bool) {
	s.Helper()
	again := time.NewTicker(100 * time.Millisecond) // real time: another process
	defer again.Stop()
	for !f() {
		select {
		case <-again.C:
		case <-ctx.Done():
			s.Fatalf("never came true: %s", what)
		}
	}
}

// alert is one that fires, or may soon.
type alert struct {
	Labels, Annotations map[string]string
	State               string
}

// alerts returns the alerts that fire, by name and queue.
func (s *server) alerts(ctx context.Context) map[string]alert {
	s.Helper()
	var data struct{ Alerts []alert }
	s.get(ctx, "/api/v1/alerts", &data)
	firing := make(map[string]alert)
	for _, a := range data.Alerts {
		if a.State == "firing" {
			firing[a.Labels["alertname"]+" "+a.Labels["queue"]] = a
		}
	}
	return firing
}

// evaluated waits until the alerts were evaluated after now, on what was recorded
// after now.
func (s *server) evaluated(ctx context.Context) {
	s.Helper()
	for _, group := range []string{"queue-recording", "queue-alerts"} {
		now := time.Now()
		s.eventually(ctx, group+" is evaluated", func() bool {
			var data struct {
				Groups []struct {
					Name           string
					LastEvaluation time.Time
					Rules          []struct{ Name, Health, LastError string }
				}
			}
			s.get(ctx, "/api/v1/rules", &data)
			for _, g := range data.Groups {
				for _, r := range g.Rules {
					if r.Health == "err" {
						s.Fatalf("%s: %s", r.Name, r.LastError)
					}
				}
				if g.Name == group && g.LastEvaluation.After(now) {
					return true
				}
			}
			return false
		})
	}
}
