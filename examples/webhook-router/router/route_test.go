package router

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/queue-runtime/queue/examples/internal/hooks"
	"github.com/queue-runtime/queue/sessionkey"
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

// The longest name of a repository that GitHub gives is longer than a session may be:
// its webhooks are taken all the same, and in order.
func TestLongNames(t *testing.T) {
	t.Parallel()
	name := strings.Repeat("o", 39) + "/" + strings.Repeat("r", 100)
	for body, want := range map[string]string{
		`{"pull_request":{"number":42},"repository":{"id":186853002,"full_name":%q}}`: "186853002:42",
		`{"issue":{"number":7},"repository":{"id":186853002,"full_name":%q}}`:         "186853002:7",
		`{"ref":"x","repository":{"id":186853002,"full_name":%q}}`:                    "186853002",
	} {
		body = fmt.Sprintf(body, name)
		if s, err := sessionOf([]byte(body), "1"); err != nil || s != want {
			t.Errorf("%.40s...: session %q, %v, want %q", body, s, err, want)
		}
	}
	// Without a number there is no order to keep to, and none is made up.
	if s, err := sessionOf(fmt.Appendf(nil, `{"repository":{"full_name":%q}}`, name), "1"); !errors.Is(err, sessionkey.ErrMessage) {
		t.Errorf("session %q, %v, want %v", s, err, sessionkey.ErrMessage)
	}
}
