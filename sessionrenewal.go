package queue

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/observe"
)

// take notes deliveries of the session, until drop.
func (s *Session) take(batch []*Delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range batch {
		d.session = s
		if s.inHand == nil {
			s.inHand = make(map[*Delivery]struct{})
		}
		s.inHand[d] = struct{}{}
	}
}

// drop forgets a delivery that is settled.
func (s *Session) drop(d *Delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.inHand, d)
}

// Renew extends the session's lock, and with it the locks, and the claims in the replay
// store, of its messages that are not settled. It fails with ErrSessionLost if the lock is
// over, and with ErrReplayStore if the store does not answer: the session's lock is extended
// then, and the claims are not.
func (s *Session) Renew(ctx context.Context) error {
	const op = "renew session"
	if err := checkContext(ctx); err != nil {
		return wrap(op, s.r.queue, err)
	}
	if err := s.check(); err != nil {
		return wrap(op, s.r.queue, err)
	}
	until, err := s.s.RenewSession(ctx)
	if err == nil {
		s.extend(until)
		err = s.renewMessages(ctx, until)
	}
	s.note(err)
	s.r.obs.Renewed(ctx, s.r.obs.Source, observe.Renewed{Err: err})
	return wrap(op, s.r.queue, err)
}

// renewMessages extends what depends on the session's lock. A message that another call
// renews is left to that call. That a claim is lost is not the session's error: the message
// finds out when it is settled.
func (s *Session) renewMessages(ctx context.Context, until time.Time) error {
	var renewals []renewal
	s.mu.Lock()
	for d := range s.inHand {
		if d.beginRenewal() {
			renewals = append(renewals, renewal{d: d, RenewResult: driver.RenewResult{LockedUntil: until}})
		}
	}
	s.mu.Unlock()
	n := 0         // renewals that are recorded
	defer func() { // none unless the store panicked
		for _, x := range renewals[n:] {
			x.d.endRenewal()
		}
	}()
	if s.r.store != nil {
		s.r.renewClaims(ctx, renewals)
	}
	var away error
	for i := range renewals {
		x := &renewals[i]
		n++
		x.d.renewed(x)
		if !errors.Is(x.Err, ErrLockLost) {
			away = cmp.Or(away, x.Err)
		}
	}
	return away
}
