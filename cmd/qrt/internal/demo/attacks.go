package demo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/queue-runtime/queue/attacktest"
	"github.com/queue-runtime/queue/cmd/qrt/internal/webhook"
	"github.com/queue-runtime/queue/drivertest"
)

// attackers is how many attacks go on at once.
const attackers = 6

// attacks lets the attacker loose: the suite that every driver has to pass, with
// webhooks for payloads. What becomes of each message is decided by the suite's
// ledger, which knows nothing of encryption either.
func (r *run) attacks(ctx context.Context) error {
	names := attacktest.Names()
	r.Progress.Begin("attacks on stored messages", len(names)*r.Attempts)
	r.report.Attacks = make([]Attack, len(names))
	r.short = shortest(r.Events)
	order := make(chan int, len(names))
	first := -1
	for i, name := range names {
		if name == afterWindow {
			first = i
		} else {
			order <- i
		}
	}
	close(order)
	done := func(i int, o attacktest.Outcome) {
		r.Progress.Step(r.Attempts)
		r.report.Attacks[i] = r.judge(o)
	}
	// The one that has a window is alone until it begins to wait; the others use
	// that time.
	waiting := make(chan struct{})
	work := slices.Repeat([]func(context.Context) error{func(ctx context.Context) error {
		select {
		case <-waiting:
		case <-ctx.Done():
			return ctx.Err()
		}
		for i := range order {
			o, err := attacktest.Run(ctx, names[i], &attacktest.Env{Broker: r.instance(names[i]), Payload: r.payload}, r.Attempts)
			if errors.Is(err, errors.ErrUnsupported) {
				r.Progress.Step(r.Attempts)
				r.report.Attacks[i] = Attack{Name: names[i], Reason: Inexpressible, Allowed: letThrough[names[i]]}
				continue
			}
			if err != nil {
				return err
			}
			done(i, o)
		}
		return nil
	}}, attackers)
	work = append(work, func(ctx context.Context) error {
		begun := sync.OnceFunc(func() { close(waiting) })
		defer begun()
		if first < 0 {
			return nil
		}
		o, err := r.replayAfterWindow(ctx, begun)
		if err == nil {
			done(first, o)
		}
		return err
	})
	return together(ctx, work...)
}

// instance is the broker as package attacktest uses it.
func (r *run) instance(name string) *drivertest.Instance {
	return &drivertest.Instance{
		Connect:  r.Broker.Connect,
		Attacker: r.Broker.Attacker,
		Slack:    receiveTimeout / 2, // the suite waits for twice that
		NewQueue: func(ctx context.Context, s drivertest.QueueSpec) (string, error) {
			return r.Broker.NewQueue(ctx, name, s)
		},
	}
}

// payload is the i-th webhook, with something of its own in it: real ones may be
// few.
func (r *run) payload(i int) []byte {
	body := r.short[i%len(r.short)]
	if len(body) > 2 && body[0] == '{' {
		return append(fmt.Appendf(nil, `{"x_github_delivery":"%08d",`, i), body[1:]...)
	}
	return fmt.Appendf(nil, `{"x_github_delivery":"%08d","payload":%q}`, i, body)
}

// shortest are the bodies of the shorter half of the webhooks: what the attacker
// does is the same to all, and each is stored and read back several times.
func shortest(events []webhook.Event) [][]byte {
	bodies := make([][]byte, len(events))
	for i := range events {
		bodies[i] = events[i].Body
	}
	slices.SortFunc(bodies, func(a, b []byte) int { return len(a) - len(b) })
	return bodies[:(len(bodies)+1)/2]
}

// letThrough are the attacks whose messages are delivered by design, marked.
var letThrough = map[string]bool{
	"plaintext_allow":            true,
	"plaintext_allow_with_alert": true,
	"unbound_attribute_added":    true,
}

// judge turns an outcome into a row, and holds it against the threat model.
func (r *run) judge(o attacktest.Outcome) Attack {
	a := Attack{
		Name:         o.Name,
		Attempts:     o.Attempts,
		Delivered:    o.Delivered,
		DeadLettered: o.DeadLettered,
		Abandoned:    o.Abandoned,
		Refused:      o.Refused,
		Reason:       o.Reason,
		Allowed:      letThrough[o.Name],
		Faults:       len(o.Faults),
	}
	for _, f := range o.Faults {
		r.fault("%s: %s", o.Name, f)
	}
	if ended := a.Delivered + a.DeadLettered + a.Abandoned + a.Refused; a.Attempts != ended {
		a.Faults++
		r.fault("%s: %d attempts, and %d came to an end", o.Name, a.Attempts, ended)
	}
	if a.Attempts < r.Attempts {
		a.Faults++
		r.fault("%s: %d attempts of %d were made", o.Name, a.Attempts, r.Attempts)
	}
	if !a.Allowed && a.Delivered > 0 {
		a.Faults++
		r.fault("%s: %d forged messages were delivered", o.Name, a.Delivered)
	}
	return a
}
