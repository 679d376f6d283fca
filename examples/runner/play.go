package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/queue-runtime/queue/examples/bot/consumer"
	"github.com/queue-runtime/queue/examples/internal/fleet"
	"github.com/queue-runtime/queue/examples/internal/hooks"
	"github.com/queue-runtime/queue/examples/webhook-router/router"
)

// session is one run.
type session struct {
	*fleet.Fleet
	report      *Report
	hooks       []hooks.Hook
	client      *http.Client
	stepTimeout time.Duration // with each step

	sent     [len(fleet.Queues)]int // messages that the broker took, by queue
	accepted int                    // answers of 202
	refused  map[string]int         // the others, by the outcome that the router counts
	findings map[finding]int        // what the attacks must lead to
}

// finding is a code of the receive pipeline at one queue.
type finding struct{ queue, code string }

// play starts the fleet, does all of it, and ends the fleet. An error means that it
// could not be done; what went wrong in it is in the report. For what must come of
// each step it waits up to stepTimeout.
func play(ctx context.Context, o *fleet.Options, count int, stepTimeout time.Duration) (_ *Report, err error) {
	begin := time.Now()
	all, err := hooks.Load(ctx)
	if err != nil {
		return nil, err
	}
	if count > 0 && count < len(all) {
		all = some(all, count)
	}
	f, err := fleet.Start(ctx, o)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s := &session{
		Fleet: f, stepTimeout: stepTimeout, report: &Report{Faults: []string{}}, hooks: all,
		client:  &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{}},
		refused: make(map[string]int), findings: make(map[finding]int),
	}
	defer s.client.CloseIdleConnections()
	for _, step := range []func(context.Context) error{s.deliver, s.repeat, s.refuse, s.attack, s.measure} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	if err := f.Stop(ctx); err != nil {
		s.report.fault("the programs did not end in order: %v", err)
	}
	s.report.RunSeconds = time.Since(begin).Seconds()
	return s.report, nil
}

// prefixes are the beginnings of the names of the events that belong to the bots, in
// their order.
var prefixes = [...]string{"pull_request", "issue", "push"}

// some returns n webhooks, of each bot by turns for as long as there are any, and then
// of events that are no bot's own.
func some(all []hooks.Hook, n int) []hooks.Hook {
	var of [len(prefixes)][]hooks.Hook
	var others, chosen []hooks.Hook
	for _, h := range all {
		i := slices.IndexFunc(prefixes[:], func(prefix string) bool { return strings.HasPrefix(h.Event, prefix) })
		if i < 0 {
			others = append(others, h)
		} else {
			of[i] = append(of[i], h)
		}
	}
	for turn := range all {
		for i := range of {
			if turn < len(of[i]) {
				chosen = append(chosen, of[i][turn])
			}
		}
	}
	return append(chosen, others...)[:n]
}

func index(queueName string) int { return slices.Index(fleet.Queues[:], queueName) }

// tasksOf returns what the bots did for one delivery.
func tasksOf(tasks []consumer.Task, delivery string) []consumer.Task {
	var of []consumer.Task
	for _, t := range tasks {
		if t.ID == delivery {
			of = append(of, t)
		}
	}
	return of
}

// deliver posts all webhooks, and compares what the bots report with what was sent.
func (s *session) deliver(ctx context.Context) error {
	for i := range s.hooks {
		h := &s.hooks[i]
		a, err := s.Post(ctx, h)
		if err != nil {
			return err
		}
		if a.Status != http.StatusAccepted {
			s.report.fault("%s was answered with %d: %s", h.Event, a.Status, a.Text)
		} else {
			s.accepted++
		}
		s.report.Webhooks = append(s.report.Webhooks, Webhook{
			Event: h.Event, Delivery: h.Delivery, Bytes: len(h.Body), SHA256: h.SHA256(), Status: a.Status,
		})
	}
	want := s.accepted
	waiting, cancel := context.WithTimeout(ctx, s.stepTimeout)
	defer cancel()
	if err := s.Wait(waiting, func(t []consumer.Task) bool { return len(t) >= want }); err != nil {
		s.report.fault("not all webhooks arrived: %v", err)
	}
	tasks := s.Tasks()
	for i := range s.report.Webhooks {
		w := &s.report.Webhooks[i]
		of := tasksOf(tasks, w.Delivery)
		if len(of) != 1 {
			s.report.fault("%s was handled %d times", w.Event, len(of))
			continue
		}
		t := of[0]
		w.Bot, w.Arrived, w.KeyID, w.Session, w.What = t.Bot, t.SHA256, t.KeyID, t.Session, t.What
		s.arrived(w.Event, w.SHA256, &t)
		s.sent[index(t.Bot)]++
	}
	return nil
}

// arrived faults what a bot reports of a webhook if it differs from what was
// sent.
func (s *session) arrived(event, sum string, t *consumer.Task) {
	if t.SHA256 != sum || t.Event != event {
		s.report.fault("%s arrived at %s as another", event, t.Bot)
	}
	if !t.Encrypted || t.KeyID != string(s.Keys[index(t.Bot)]) {
		s.report.fault("%s arrived at %s under key %q", event, t.Bot, t.KeyID)
	}
	if t.Sender != fleet.SenderID {
		s.report.fault("%s arrived at %s from sender %q", event, t.Bot, t.Sender)
	}
	for i, prefix := range prefixes {
		if strings.HasPrefix(event, prefix) && t.Bot != fleet.Queues[i] {
			s.report.fault("%s arrived at %s", event, t.Bot)
		}
	}
}

// repeat posts some deliveries once more, as GitHub does on demand.
func (s *session) repeat(ctx context.Context) error {
	for i := range min(3, len(s.hooks)) {
		a, err := s.Post(ctx, &s.hooks[i])
		if err != nil {
			return err
		}
		if a.Status != http.StatusAccepted {
			s.report.fault("a repeat was answered with %d: %s", a.Status, a.Text)
			continue
		}
		s.accepted++
		s.report.Repeats.Posted++
		// The broker confirms a repeat, and so it counts as sent.
		s.sent[index(s.report.Webhooks[i].Bot)]++
	}
	return nil // whether one is handled twice is seen at the end
}

// refuse posts what must not be taken.
func (s *session) refuse(ctx context.Context) error {
	h := s.hooks[0].Again()
	large := hooks.Hook{Event: "push", Delivery: h.Delivery, Body: slices.Repeat([]byte(" "), 1<<20)}
	for _, c := range []struct {
		what    string
		hook    *hooks.Hook
		change  func(*http.Request)
		status  int
		outcome string
	}{
		{"no signature", &h, func(q *http.Request) { q.Header.Del("X-Hub-Signature-256") }, http.StatusUnauthorized, "unsigned"},
		{"signed under another secret", &h, func(q *http.Request) {
			q.Header.Set("X-Hub-Signature-256", hooks.Sign("another secret than that of GitHub", h.Body))
		}, http.StatusUnauthorized, "bad_signature"},
		{"a signature of another body", &h, func(q *http.Request) {
			q.Header.Set("X-Hub-Signature-256", hooks.Sign(s.Secret, []byte("{}")))
		}, http.StatusUnauthorized, "bad_signature"},
		{"a body of 1 MiB", &large, func(*http.Request) {}, http.StatusRequestEntityTooLarge, "too_large"},
		{"no delivery GUID", &h, func(q *http.Request) { q.Header.Del("X-GitHub-Delivery") }, http.StatusBadRequest, "malformed"},
	} {
		q, err := hooks.Request(ctx, s.Router.URL("webhooks")+router.Path, s.Secret, c.hook)
		if err != nil {
			return err
		}
		c.change(q)
		a, err := hooks.Do(s.client, q)
		if err != nil {
			return fmt.Errorf("%s: %w", c.what, err)
		}
		s.refused[c.outcome]++
		s.report.Refused = append(s.report.Refused, Refused{What: c.what, Status: a.Status, Answer: a.Text})
		if a.Status != c.status {
			s.report.fault("%s was answered with %d, want %d", c.what, a.Status, c.status)
		}
	}
	return nil
}

// stopBots lets messages lie in the broker's file.
func (s *session) stopBots(ctx context.Context) error {
	var errs []error
	for _, b := range s.Bots {
		errs = append(errs, b.Stop(ctx))
	}
	return errors.Join(errs...)
}

func (s *session) startBots(ctx context.Context) error {
	var errs []error
	for _, b := range s.Bots {
		errs = append(errs, b.Start(ctx))
	}
	return errors.Join(errs...)
}
