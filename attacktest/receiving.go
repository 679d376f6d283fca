package attacktest

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
)

// receiveAll receives until every attempt has a disposition and want honest
// messages have arrived, or until nothing arrives any more. accept judges an
// attempt that was delivered.
func (s *scenario) receiveAll(r *queue.Receiver, want int, accept func(*queue.Delivery)) error {
	arrived := make(map[string]bool)
	take := func(list []*queue.Delivery) error {
		for _, d := range list {
			_, attempt := s.attempts[d.ID]
			genuine := d.Encrypted && fingerprintOf(&d.Message) == s.sent[d.ID]
			switch {
			case attempt:
				s.became[d.ID] = delivered
				accept(d)
			case genuine && arrived[d.ID]:
				s.fault("message %q was delivered twice", d.ID)
			case genuine:
				arrived[d.ID] = true
			default:
				s.fault("message %q was delivered, and was never sent with this content", d.ID)
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
				s.became[e.MessageID] = abandoned
			} else {
				s.became[e.MessageID] = deadLettered
			}
		}
		s.rejected = nil
	}
	slack := s.env.Broker.Slack
	if slack == 0 {
		slack = 5 * time.Second
	}
	for last := time.Now(); len(s.became) < len(s.attempts) || len(arrived) < want; {
		before := len(s.became) + len(arrived)
		if err := s.round(r, take); err != nil {
			return err
		}
		note()
		if len(s.became)+len(arrived) > before {
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
	return s.checkAbandoned(r)
}

// checkAbandoned checks that abandoned messages are still in the queue, if the
// broker can peek.
func (s *scenario) checkAbandoned(r *queue.Receiver) error {
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
	for _, id := range slices.Sorted(maps.Keys(s.became)) {
		if s.became[id] == abandoned && !there[id] {
			s.fault("message %q was abandoned and is gone", id)
		}
	}
	return nil
}

// round receives once, from a session if the queue has only sessions.
func (s *scenario) round(r *queue.Receiver, take func([]*queue.Delivery) error) error {
	if !r.Capabilities().SessionOnly {
		list, err := r.Receive(s.ctx, 10)
		if errors.Is(err, queue.ErrNoMessage) {
			return nil
		}
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
	if errors.Is(err, queue.ErrNoMessage) || errors.Is(err, queue.ErrSessionLost) {
		err = nil // all were rejected; or one must wait, and releases the session
	}
	return errors.Join(err, session.Close(s.ctx))
}
