package webhook

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestGenerate(t *testing.T) {
	const n = 500
	seen := make(map[string]bool)
	routed := make(map[string]int)
	sessions := make(map[string]string) // session to queue
	for i, e := range Generate(n, 7) {
		if len(e.Body) < 6<<10 || len(e.Body) > 32<<10 {
			t.Errorf("event %d has %d bytes, want 7 to 30 KB", i, len(e.Body))
		}
		if !json.Valid(e.Body) {
			t.Fatalf("event %d is no JSON", i)
		}
		if seen[string(e.Body)] {
			t.Errorf("event %d is there twice", i)
		}
		seen[string(e.Body)] = true
		session, err := sessionOf(e.Body)
		if err != nil || session != e.Session {
			t.Errorf("event %d: session %q in the body (%v), %q beside it", i, session, err, e.Session)
		}
		q := Route(&e)
		routed[q]++
		sessions[e.Session] = q
	}
	for _, q := range Queues {
		if routed[q] < n/10 {
			t.Errorf("%d of %d events for %s", routed[q], n, q)
		}
	}
	if len(sessions) < 50 {
		t.Errorf("%d sessions", len(sessions))
	}
	if a, b := Generate(3, 1), Generate(3, 1); string(a[2].Body) != string(b[2].Body) {
		t.Error("the same seed made other events")
	}
}

func TestRoute(t *testing.T) {
	for name, want := range map[string]string{
		"pull_request":                TaskTactician,
		"pull_request_review_comment": TaskTactician,
		"issues":                      MergeWarden,
		"issue_comment":               MergeWarden,
		"push":                        SpecSentinel,
	} {
		if got := Route(&Event{Name: name}); got != want {
			t.Errorf("%s went to %s, want %s", name, got, want)
		}
	}
	other := Event{Name: "release", Session: "a/b"}
	first := Route(&other)
	if again := Route(&other); again != first {
		t.Error("an event of no bot is not routed the same way each time")
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	write := func(name, body string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Load(dir); err == nil {
		t.Error("an empty folder is no error")
	}
	write("pull-request.json", `{"number":7,"repository":{"full_name":"a/b"}}`)
	write("issues.json", `{"issue":{"number":9},"repository":{"full_name":"a/b"}}`)
	write("ping.json", `{}`)
	write("readme.txt", `not read`)
	events, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range events {
		got = append(got, e.Name+" "+e.Session)
	}
	if g, want := strings.Join(got, ", "), "issues a/b#9, ping , pull_request a/b#7"; g != want {
		t.Errorf("loaded %q, want %q", g, want)
	}
	write("broken.json", `{"number":`)
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "broken.json") {
		t.Errorf("a broken file: %v", err)
	}
}
