package observed_test

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/examples/bot/consumer"
	"github.com/queue-runtime/queue/examples/internal/fleet"
	"github.com/queue-runtime/queue/examples/internal/hooks"
	"github.com/queue-runtime/queue/testbed/sqliteattack"
)

// scene is the router and the bots with a Prometheus that watches them, and an
// attacker who can write to the file of the queues.
type scene struct {
	*testing.T
	ctx      context.Context
	fleet    *fleet.Fleet
	watch    *server
	attacker *sqliteattack.Attacker
	hooks    map[string]*hooks.Hook // one for each queue
	handled  int
}

func (s *scene) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// post delivers a webhook to a queue.
func (s *scene) post(queue string) {
	s.Helper()
	h := s.hooks[queue].Again()
	a, err := s.fleet.Post(s.ctx, &h)
	s.must(err)
	if a.Status != http.StatusAccepted {
		s.Fatalf("%s: %d %s", h.Event, a.Status, a.Text)
	}
}

// wait waits until that many more tasks are done.
func (s *scene) wait(n int) {
	s.Helper()
	s.handled += n
	s.must(s.fleet.Wait(s.ctx, func(t []consumer.Task) bool { return len(t) >= s.handled }))
}

// While an attacker edits stored messages the alert fires, for the queues where that
// happens and for no other; while none does, no alert fires.
func TestTamperingAlert(t *testing.T) {
	t.Parallel()
	program := peer(t, "prometheus")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	s := &scene{T: t, ctx: ctx, hooks: make(map[string]*hooks.Hook)}
	all, err := hooks.Load(ctx)
	s.must(err)
	for i := range all {
		for prefix, queue := range map[string]string{"pull_request": fleet.Queues[0], "issues": fleet.Queues[1], "push": fleet.Queues[2]} {
			if all[i].Event == prefix {
				s.hooks[queue] = &all[i]
			}
		}
	}
	if len(s.hooks) != len(fleet.Queues) {
		t.Fatalf("webhooks for %q, want one for each queue", slices.Sorted(maps.Keys(s.hooks)))
	}
	s.fleet, err = fleet.Start(ctx, &fleet.Options{Dir: t.TempDir()})
	s.must(err)
	defer s.fleet.Close()
	targets := []target{{"router", s.fleet.Router.URL("admin")}}
	for i, b := range s.fleet.Bots {
		targets = append(targets, target{fleet.Queues[i], b.URL("admin")})
	}
	s.watch = startPrometheus(ctx, t, program, targets)
	s.attacker, err = sqliteattack.Open(s.fleet.Database)
	s.must(err)
	defer func() { s.must(s.attacker.Close()) }()

	captured := s.peace()
	s.editStored()
	s.injectEdited(captured)
	s.fires()
	s.shows()
}

// shows puts every query of the dashboard to Prometheus, which evaluates each, and has
// an answer to those about what has happened.
func (s *scene) shows() {
	answered := make(map[string]bool)
	for _, q := range dashboardQueries(s.T) {
		if s.watch.holds(s.ctx, q.expr) {
			answered[strings.TrimPrefix(q.where, "dashboard.json, ")] = true
		}
	}
	for _, panel := range []string{
		"Sent encrypted", "Received encrypted", "Queues not encrypted", "Alerts firing", "Firing", "Encryption by process",
		"Not authentic", "Rejected share", "Findings by reason", "What became of them",
		"Oldest key in use", "Keys", "Sealed under each key", "Opened under each key", "Sealing and opening",
		"Waiting", "Oldest message", "Dead letters", "Dead-lettered", "Dead-lettered by reason", "Depth",
		"Handling time", "Handling time, all of it", "Dispositions", "Handlers running", "Sessions held",
		"Sent", "Received", "Sending", "Receiving", "Settling",
		"annotation Alerts", "variable job", "variable queue",
	} {
		if !answered[panel] {
			s.Errorf("the dashboard shows nothing under %q", panel)
		}
	}
}

// peace sends messages that no attacker edits: no alert fires. It returns one
// as it was stored, which an attacker who only reads has copied.
func (s *scene) peace() driver.Message {
	for _, q := range fleet.Queues {
		s.post(q)
	}
	s.wait(len(fleet.Queues))
	victim := s.fleet.Bots[1]
	s.must(victim.Stop(s.ctx))
	s.post(fleet.Queues[1])
	stored, err := s.attacker.Read(s.ctx, fleet.Queues[1])
	s.must(err)
	if len(stored) != 1 || !stored[0].Sealed {
		s.Fatalf("%d messages are stored in %s, want one that is sealed", len(stored), fleet.Queues[1])
	}
	s.must(victim.Start(s.ctx))
	s.wait(1)
	// Prometheus has seen all of it. There is no counter of what has not happened: the
	// alert has to see the first failure as a series that begins.
	for _, q := range fleet.Queues {
		s.watch.until(s.ctx, `queue:messages_received:increase5m{encrypted="true", queue="`+q+`"} >= 1`)
		if s.watch.holds(s.ctx, `queue_crypto_errors_total{queue="`+q+`"}`) {
			s.Errorf("%s: findings are counted before there is one", q)
		}
	}
	s.watch.until(s.ctx, `sum(queue_messages_sent_total{encrypted="true", job="router"}) == 4`)
	s.watch.evaluated(s.ctx)
	if firing := s.watch.alerts(s.ctx); len(firing) > 0 {
		s.Fatalf("no message was edited, and there is %v", firing)
	}
	return stored[0]
}

// editStored alters a message where it lies.
func (s *scene) editStored() {
	q := fleet.Queues[0]
	s.must(s.fleet.Bots[0].Stop(s.ctx))
	s.post(q)
	edited := 0
	s.must(s.attacker.Rewrite(s.ctx, q, func(m []driver.Message) []driver.Message {
		for i := range m {
			m[i].Body[len(m[i].Body)/2] ^= 1
		}
		edited = len(m)
		return m
	}))
	if edited != 1 {
		s.Fatalf("%d messages were edited, want 1", edited)
	}
	s.must(s.fleet.Bots[0].Start(s.ctx))
	// A key under which nothing has opened yet may be the one that is wrong, so the altered
	// message waits until the bot has opened another.
	s.post(q)
	s.wait(1)
}

// injectEdited puts an altered copy of a message that was handled before in front of a
// bot that runs.
func (s *scene) injectEdited(m driver.Message) {
	m.ID, m.DedupID = "another", "another"
	m.Body[len(m.Body)/2] ^= 1
	s.must(s.attacker.Rewrite(s.ctx, fleet.Queues[1], func(all []driver.Message) []driver.Message { return append(all, m) }))
}

// fires wants the alert for the two queues, and what was altered among the dead letters.
func (s *scene) fires() {
	const name = "QueueAuthenticationFailures "
	var firing map[string]alert
	s.watch.eventually(s.ctx, "the alert fires for both queues", func() bool {
		firing = s.watch.alerts(s.ctx)
		_, first := firing[name+fleet.Queues[0]]
		_, second := firing[name+fleet.Queues[1]]
		return first && second
	})
	s.watch.evaluated(s.ctx)
	for of, a := range s.watch.alerts(s.ctx) {
		if strings.HasSuffix(of, " "+fleet.Queues[2]) || strings.HasPrefix(of, "QueueForged") || strings.HasPrefix(of, "QueueReplays") {
			s.Errorf("no attacker did this, and it fires: %s %v", of, a)
		}
	}
	a := firing[name+fleet.Queues[0]]
	if a.Labels["severity"] != "critical" || !strings.HasSuffix(a.Annotations["runbook_url"], "/runbooks/QueueAuthenticationFailures.md") {
		s.Errorf("the alert is %v", a)
	}
	for _, q := range fleet.Queues[:2] {
		var (
			dead []driver.Message
			why  []driver.DeadLetter
		)
		s.watch.eventually(s.ctx, "what was altered is a dead letter", func() bool {
			var err error
			dead, why, err = s.attacker.DeadLetters(s.ctx, q)
			s.must(err)
			return len(dead) > 0
		})
		if len(dead) != 1 || why[0].Reason != "authentication_failed" {
			s.Errorf("%s: %d dead letters for %v, want the one that was altered", q, len(dead), why)
		}
	}
	if n := len(s.fleet.Tasks()); n != s.handled {
		s.Errorf("%d tasks, want %d: what was altered was handled", n, s.handled)
	}
}
