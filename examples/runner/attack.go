package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/examples/bot/consumer"
	"github.com/queue-runtime/queue/examples/internal/fleet"
	"github.com/queue-runtime/queue/examples/internal/hooks"
	"github.com/queue-runtime/queue/testbed/sqliteattack"
)

// What can become of a message beside a code of the receive pipeline.
const (
	delivered = "delivered as it was sent"
	waits     = "waits: the bot has no such key"
	repeated  = "completed: it was handled once already"
)

// edits are what is done to one stored message each, and what must come of it.
var edits = []struct {
	what string
	want string
	do   func(m *driver.Message)
}{
	{"nothing", delivered, func(*driver.Message) {}},
	{"adds an attribute", delivered, func(m *driver.Message) { m.Attributes["priority"] = "high" }},
	{"flips one bit of the body", queue.ReasonOf(queue.ErrAuthenticationFailed), func(m *driver.Message) { m.Body[len(m.Body)/2] ^= 1 }},
	{"cuts the body short", queue.ReasonOf(queue.ErrAuthenticationFailed), func(m *driver.Message) { m.Body = m.Body[:len(m.Body)-8] }},
	{"changes the delivery GUID", queue.ReasonOf(queue.ErrAuthenticationFailed), func(m *driver.Message) { m.ID = "0" + m.ID[1:] + "0" }},
	{"moves it to another session", queue.ReasonOf(queue.ErrAuthenticationFailed), func(m *driver.Message) { m.SessionID += "0" }},
	{"makes it another event", queue.ReasonOf(queue.ErrAuthenticationFailed), func(m *driver.Message) { m.Attributes[eventAttribute] = "release" }},
	{"replaces it by plaintext", queue.ReasonOf(queue.ErrUnencryptedMessage), func(m *driver.Message) { m.Body, m.Sealed = []byte(`{"action":"opened"}`), false }},
	{"replaces all but the marker", queue.ReasonOf(queue.ErrInvalidEnvelope), func(m *driver.Message) { m.Body = append([]byte("QRE1\x01"), bytes.Repeat([]byte{0xff}, 200)...) }},
}

const eventAttribute = "github-event"

var keyNotFound = queue.ReasonOf(queue.ErrKeyNotFound)

// stored is a message as the attacker left it, to find it again by.
type stored struct {
	id   string
	body [sha256.Size]byte
}

func mark(m *driver.Message) stored { return stored{m.ID, sha256.Sum256(m.Body)} }

// victim is a message that something was done to.
type victim struct {
	report  *Attack
	hook    *hooks.Hook
	edited  stored
	queue   int
	foreign bool // copied from another queue
}

// attack lets webhooks lie in the broker's file, edits them there, and looks what
// the bots make of them; then it plays one that was handled back.
func (s *session) attack(ctx context.Context) (err error) {
	if err := s.stopBots(ctx); err != nil {
		return err
	}
	attacker, err := sqliteattack.Open(s.Database)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, attacker.Close()) }()
	var victims []*victim
	var untouched [len(fleet.Queues)]driver.Message
	for i, name := range fleet.Queues {
		posted, err := s.fill(ctx, i)
		if err != nil {
			return err
		}
		all, err := attacker.Read(ctx, name)
		if err != nil {
			return err
		}
		if len(all) != len(posted) {
			return fmt.Errorf("%s holds %d messages, want %d", name, len(all), len(posted))
		}
		untouched[i] = all[0]
		for _, m := range all {
			for _, h := range posted {
				if bytes.Contains(m.Body, h.Body[:min(len(h.Body), 64)]) {
					s.report.fault("the broker can read %s", h.Event)
				}
			}
		}
		err = attacker.Rewrite(ctx, name, func(all []driver.Message) []driver.Message {
			for j, e := range edits {
				e.do(&all[j])
				victims = append(victims, &victim{
					report: &Attack{Queue: name, What: e.what, Want: e.want}, hook: posted[j], edited: mark(&all[j]), queue: i,
				})
			}
			// A second copy of the first, which is untouched.
			again := all[0]
			victims = append(victims, &victim{
				report: &Attack{Queue: name, What: "stores a copy beside it", Want: repeated}, edited: mark(&again), queue: i,
			})
			all = append(all, again)
			return all
		})
		if err != nil {
			return err
		}
	}
	if err := s.startBots(ctx); err != nil {
		return err
	}
	if err := s.settle(ctx, attacker, victims); err != nil {
		return err
	}
	// What was handled, once more; and behind it, because it holds its session up
	// for as long as its key may still arrive, what is another bot's.
	for i, name := range fleet.Queues {
		other := (i + 1) % len(fleet.Queues)
		victims = append(victims,
			&victim{report: &Attack{Queue: name, What: "plays one back that was handled", Want: repeated}, edited: mark(&untouched[i]), queue: i},
			&victim{report: &Attack{Queue: name, What: "copies one of " + fleet.Queues[other] + " into it", Want: waits}, edited: mark(&untouched[other]), queue: i, foreign: true})
		if err := attacker.Rewrite(ctx, name, func(all []driver.Message) []driver.Message {
			return append(all, untouched[i], untouched[other])
		}); err != nil {
			return err
		}
	}
	if err := s.settle(ctx, attacker, victims); err != nil {
		return err
	}
	for _, v := range victims {
		s.report.Attacks = append(s.report.Attacks, *v.report)
		if v.report.Outcome != v.report.Want {
			s.report.fault("%s: an attacker who %s: %s, want %s", v.report.Queue, v.report.What, v.report.Outcome, v.report.Want)
		}
		switch v.report.Want {
		case delivered, repeated:
		case waits:
			s.findings[finding{v.report.Queue, keyNotFound}]++
		default:
			s.findings[finding{v.report.Queue, v.report.Want}]++
		}
	}
	return nil
}

// fill posts a webhook for each edit to a queue whose bot is stopped.
func (s *session) fill(ctx context.Context, queueIndex int) ([]*hooks.Hook, error) {
	var of []*hooks.Hook
	for i, w := range s.report.Webhooks {
		if w.Bot == fleet.Queues[queueIndex] {
			of = append(of, &s.hooks[i])
		}
	}
	if len(of) == 0 {
		return nil, fmt.Errorf("no webhook went to %s", fleet.Queues[queueIndex])
	}
	posted := make([]*hooks.Hook, len(edits))
	for j := range posted {
		h := of[j%len(of)].Again()
		a, err := s.Post(ctx, &h)
		if err != nil {
			return nil, err
		}
		if a.Status != http.StatusAccepted {
			return nil, fmt.Errorf("%s was answered with %d: %s", h.Event, a.Status, a.Text)
		}
		s.accepted++
		s.sent[queueIndex]++
		posted[j] = &h
	}
	return posted, nil
}

// settle waits until all attacked messages reached their expected outcome, and notes
// the outcome of each.
func (s *session) settle(ctx context.Context, a *sqliteattack.Attacker, victims []*victim) error {
	ctx, cancel := context.WithTimeout(ctx, s.stepTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := s.look(context.WithoutCancel(ctx), a, victims); err != nil {
			return err
		}
		done := !slices.ContainsFunc(victims, func(v *victim) bool { return v.report.Outcome != v.report.Want })
		select {
		case <-tick.C:
			if done {
				return nil
			}
		case <-ctx.Done():
			return nil // the report says what is missing
		}
	}
}

// look notes what has become of each victim so far. Each dead letter stands for one
// victim.
func (s *session) look(ctx context.Context, a *sqliteattack.Attacker, victims []*victim) error {
	tasks := s.Tasks()
	var dead, waiting [len(fleet.Queues)]map[stored][]string
	for i, name := range fleet.Queues {
		dead[i], waiting[i] = make(map[stored][]string), make(map[stored][]string)
		letters, why, err := a.DeadLetters(ctx, name)
		if err != nil {
			return err
		}
		for j := range letters {
			k := mark(&letters[j])
			dead[i][k] = append(dead[i][k], why[j].Reason)
		}
		rest, err := a.Read(ctx, name)
		if err != nil {
			return err
		}
		for j := range rest {
			k := mark(&rest[j])
			waiting[i][k] = append(waiting[i][k], "")
		}
	}
	for _, v := range victims {
		v.report.Outcome = "is not settled"
		reasons := dead[v.queue][v.edited]
		switch {
		case v.report.Want == delivered:
			of := tasksOf(tasks, v.hook.Delivery)
			if len(of) > 0 && of[0].Bot == v.report.Queue && of[0].SHA256 == v.hook.SHA256() && of[0].Event == v.hook.Event {
				v.report.Outcome = delivered
			}
		case v.report.Want == repeated:
			switch n := len(tasksOf(tasks, v.edited.id)); {
			case n > 1:
				v.report.Outcome = "handled twice"
			case len(reasons) > 0:
				v.report.Outcome = reasons[0]
			case n == 1 && len(waiting[v.queue][v.edited]) == 0:
				v.report.Outcome = repeated
			}
		case v.foreign:
			wrong := slices.ContainsFunc(tasksOf(tasks, v.edited.id), func(t consumer.Task) bool { return t.Bot == v.report.Queue })
			switch {
			case wrong:
				v.report.Outcome = "delivered to the wrong bot"
			case len(reasons) > 0:
				v.report.Outcome = reasons[0]
			case len(waiting[v.queue][v.edited]) > 0:
				v.report.Outcome = waits
			}
		case len(reasons) > 0:
			v.report.Outcome = reasons[0]
			dead[v.queue][v.edited] = reasons[1:]
		}
	}
	return nil
}
