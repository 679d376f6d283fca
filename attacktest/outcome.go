package attacktest

import (
	"maps"
	"slices"
	"strings"

	"github.com/queue-runtime/queue/drivertest"
)

// Outcome is the result of an attack. Attempts equals Delivered + DeadLettered +
// Abandoned + Refused, unless Faults says otherwise.
type Outcome struct {
	Name     string `json:"name"`
	Attempts int    `json:"attempts"`

	// Delivered counts the attempts that reached the application. In an attack
	// on authenticity each is a success of the attacker, and a fault.
	Delivered    int `json:"delivered"`
	DeadLettered int `json:"dead_lettered"`
	Abandoned    int `json:"abandoned"` // the broker will deliver them again
	Refused      int `json:"refused"`   // states of sessions, which cannot be dead-lettered

	// Reason is the code under which metrics and dead-letter reasons report
	// the attempts. Several codes are separated by commas.
	Reason string `json:"reason"`

	// Faults are the differences from the threat model, in words. They never
	// hold a payload. Empty means that the library withstood the attack.
	Faults []string `json:"faults,omitempty"`
}

// disposition is what must become of every attempt.
type disposition int

const (
	deadLettered disposition = iota
	abandoned
	delivered
	refused
)

func (d disposition) String() string {
	switch d {
	case delivered:
		return "delivered"
	case deadLettered:
		return "dead-lettered"
	case abandoned:
		return "abandoned"
	case refused:
		return "refused"
	}
	return "invalid"
}

// outcome compares what happened with the threat model.
func (s *scenario) outcome() Outcome {
	o := Outcome{Name: s.attack.name, Attempts: len(s.attempts)}
	for _, id := range slices.Sorted(maps.Keys(s.attempts)) {
		d, ok := s.became[id]
		if !ok {
			s.fault("message %q was neither delivered nor rejected", id)
			continue
		}
		if d != s.attack.becomes {
			s.fault("message %q was %s, it must be %s", id, d, s.attack.becomes)
		}
		switch d {
		case delivered:
			o.Delivered++
		case deadLettered:
			o.DeadLettered++
		case abandoned:
			o.Abandoned++
		case refused:
			o.Refused++
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
	s.checkDeadLetters(o.DeadLettered)
	slices.Sort(s.faults)
	o.Faults = s.faults
	return o
}

// checkDeadLetters compares the dead letters with what the attacker stored: none
// was deleted or changed, and each has the right reason.
func (s *scenario) checkDeadLetters(want int) {
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
		if d := drivertest.Difference(&m, &dead[i]); d != "" {
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
