package router

import (
	"testing"

	"github.com/queue-runtime/queue/examples/internal/hooks"
)

// Each real webhook has a session that every broker takes, and a queue.
func TestRealSessions(t *testing.T) {
	t.Parallel()
	all, err := hooks.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"pull_request":                "baxterthehacker/public-repo:1",
		"pull_request_review":         "baxterthehacker/public-repo:8",
		"pull_request_review_comment": "baxterthehacker/public-repo:1",
		"issues":                      "baxterthehacker/public-repo:2",
		"issue_comment":               "baxterthehacker/public-repo:2",
		"push":                        "binkkatal/sample_app",
	}
	spread := map[route]int{}
	for _, h := range all {
		spread[routeOf(h.Event)]++
		s, err := sessionOf(h.Body, h.Delivery)
		if err != nil || s == "" {
			t.Errorf("%s: session %q, %v", h.Event, s, err)
		}
		if w, ok := want[h.Event]; ok && s != w {
			t.Errorf("%s: session %q, want %q", h.Event, s, w)
		}
		delete(want, h.Event)
	}
	if len(want) > 0 {
		t.Errorf("not among the webhooks: %v", want)
	}
	for r := range route(routes) {
		if spread[r] < 5 {
			t.Errorf("queue %d has %d of %d webhooks", r, spread[r], len(all))
		}
	}
}

func TestRoute(t *testing.T) {
	t.Parallel()
	for event, want := range map[string]route{
		"pull_request": pullRequests, "pull_request_review_comment": pullRequests,
		"issues": issues, "issue_comment": issues, "push": pushes,
	} {
		if got := routeOf(event); got != want {
			t.Errorf("%s goes to %d, want %d", event, got, want)
		}
	}
}
