package drivertest

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
)

// harvest receives from a queue until every attempt has met its fate and want
// honest messages have come, or nothing comes any more. accept judges a delivered
// attempt.
func (s *siege) harvest(r *queue.Receiver, want int, accept func(*queue.Delivery)) error {
	arrived := make(map[string]bool)
	take := func(list []*queue.Delivery) error {
		for _, d := range list {
			_, attempt := s.attempts[d.ID]
			genuine := d.Encrypted && fingerprintOf(&d.Message) == s.honest[d.ID]
			switch {
			case attempt:
				s.fate[d.ID] = delivered
				accept(d)
			case genuine && arrived[d.ID]:
				s.fault("message %q was delivered twice", d.ID)
			case genuine:
				arrived[d.ID] = true
			default:
				s.fault("message %q was delivered, and nobody sent it like that", d.ID)
			}
			if err := d.Complete(s.ctx); err != nil {
				return err
			}
		}
		return nil
	}
	note := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, e := range s.rejected {
			if _, attempt := s.attempts[e.MessageID]; !attempt {
				s.fault("the honest message %q was rejected: %s", e.MessageID, e.Reason)
				continue
			}
			if e.SettleErr != nil {
				s.fault("message %q could not be settled: %v", e.MessageID, e.SettleErr)
			}
			if e.Disposition == driver.Abandoned {
				s.fate[e.MessageID] = abandoned
			} else {
				s.fate[e.MessageID] = deadLettered
			}
		}
		s.rejected = nil
	}
	slack := s.env.Broker.Slack
	if slack == 0 {
		slack = 5 * time.Second
	}
	for last := time.Now(); len(s.fate) < len(s.attempts) || len(arrived) < want; {
		before := len(s.fate) + len(arrived)
		if err := s.round(r, take); err != nil {
			return err
		}
		note()
		if len(s.fate)+len(arrived) > before {
			last = time.Now()
		}
		if time.Since(last) > 2*slack {
			break
		}
	}
	// Nothing more may come.
	if err := s.round(r, take); err != nil {
		return err
	}
	note()
	if len(arrived) < want {
		s.fault("%d of %d honest messages were lost", want-len(arrived), want)
	}
	return s.kept(r)
}

// kept looks for what was abandoned, where the broker lets one look: it must
// still be there.
func (s *siege) kept(r *queue.Receiver) error {
	if r.Capabilities().Peek == driver.None {
		return nil
	}
	there := make(map[string]bool)
	for cursor := ""; ; {
		list, next, err := r.Peek(s.ctx, cursor, 100)
		if err != nil {
			return err
		}
		for _, p := range list {
			there[p.ID] = true
		}
		if next == "" {
			break
		}
		cursor = next
	}
	for _, id := range slices.Sorted(maps.Keys(s.fate)) {
		if s.fate[id] == abandoned && !there[id] {
			s.fault("message %q was abandoned and is gone", id)
		}
	}
	return nil
}

// round receives once, in whichever way the queue has.
func (s *siege) round(r *queue.Receiver, take func([]*queue.Delivery) error) error {
	if !r.Capabilities().SessionOnly {
		list, err := r.Receive(s.ctx, 10)
		if err != nil {
			return err
		}
		return take(list)
	}
	session, err := r.NextSession(s.ctx)
	if errors.Is(err, queue.ErrNoSession) {
		return nil
	}
	if err != nil {
		return err
	}
	list, err := session.Receive(s.ctx, 10)
	if err == nil {
		err = take(list)
	}
	if errors.Is(err, queue.ErrSessionLost) {
		err = nil // a message that must wait releases the session
	}
	return errors.Join(err, session.Close(s.ctx))
}

// outcome compares what happened with the threat model.
func (s *siege) outcome() Outcome {
	o := Outcome{Name: s.attack.name, Attempts: len(s.attempts)}
	for _, id := range slices.Sorted(maps.Keys(s.attempts)) {
		fate, ok := s.fate[id]
		if !ok {
			s.fault("message %q was neither delivered nor rejected", id)
			continue
		}
		if fate != s.attack.becomes {
			s.fault("message %q was %s, it must be %s", id, fate, s.attack.becomes)
		}
		switch fate {
		case delivered:
			o.Delivered++
		case deadLettered:
			o.DeadLettered++
		case abandoned:
			o.Abandoned++
		}
	}
	s.mu.Lock()
	counted := s.errors[s.attack.errorType]
	o.Reason = strings.Join(slices.Sorted(maps.Keys(s.errors)), ",")
	s.mu.Unlock()
	if o.Attempts != s.n {
		s.fault("%d attempts were made, not %d", o.Attempts, s.n)
	}
	if o.Reason != s.attack.errorType {
		s.fault("the error type is %q, it must be %q", o.Reason, s.attack.errorType)
	}
	// What is abandoned comes again, and is counted again.
	if s.attack.errorType != "" && (counted < o.Attempts || counted > o.Attempts && s.attack.becomes != abandoned) {
		s.fault("the metrics count %d times %q in %d attempts", counted, s.attack.errorType, o.Attempts)
	}
	s.graves(o.DeadLettered)
	slices.Sort(s.faults)
	o.Faults = s.faults
	return o
}

// graves holds the dead letters against what the attacker stored: none was
// deleted, none was changed, and each says why it is there.
func (s *siege) graves(want int) {
	dead, why, err := s.env.Broker.Attacker.DeadLetters(s.ctx, s.queue)
	if err != nil {
		s.fault("the dead letters could not be read: %v", err)
		return
	}
	found := 0
	for i := range dead {
		m, ok := s.attempts[dead[i].ID]
		if !ok {
			s.fault("the honest message %q is a dead letter", dead[i].ID)
			continue
		}
		found++
		if d := difference(&m, &dead[i]); d != "" {
			s.fault("the dead letter %q is not what was rejected: %s", m.ID, d)
		}
		if why[i].Reason != s.attack.errorType {
			s.fault("the dead letter %q has the reason %q, it must be %q", m.ID, why[i].Reason, s.attack.errorType)
		}
	}
	if found != want {
		s.fault("%d messages were dead-lettered and %d are dead letters", want, found)
	}
}
