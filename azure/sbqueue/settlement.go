package sbqueue

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/queue-runtime/queue/driver"
)

// How long settling and renewing may take. The SDK's settling goes through the
// dead link after a lost connection, and waits 4 s and more between its attempts
// whatever the retry options say: it took most of a minute.
const (
	callLimit = 8500 * time.Millisecond // a whole call of Settle or Renew, and a step
	callGrace = 500 * time.Millisecond  // how long a call of the SDK may outlast that
	callWidth = 16                      // messages at once: each is a round trip

	settleOverLink = 3 * time.Second // over the link that the message came by, and a step
	settleTokens   = 5 * time.Second // by the lock token
	settleToken    = 2 * time.Second // one attempt of it
	releaseTime    = 3 * time.Second // of all that a source holds
)

// settler settles one message.
type settler interface {
	settleOne(context.Context, *driver.Settlement) error
}

// settle settles each on its own.
func (s *source) settle(ctx context.Context, all []driver.Settlement) []error {
	return s.settleBy(ctx, all, callWidth, s)
}

func (s *source) settleBy(ctx context.Context, all []driver.Settlement, width int, by settler) []error {
	errs := make([]error, len(all))
	for i, o := range s.q.b.each(ctx, len(all), width, func(i int) error { return by.settleOne(ctx, &all[i]) }) {
		errs[i] = o.err
		if r, ok := all[i].Delivery.Receipt.(*receipt); ok && o.pending {
			s.outlast(r)
		}
	}
	return errs
}

// outlast notes that the settlement of r outlasts the call that began it, unless it has ended
// since that gave up.
func (s *source) outlast(r *receipt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.unanswered = r.settling
}

func (s *source) settleOne(ctx context.Context, x *driver.Settlement) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r, ok := x.Delivery.Receipt.(*receipt)
	if !ok {
		return driver.Errorf(driver.Invalid, "the delivery is of another driver")
	}
	if s.over.Err() != nil {
		return errClosed()
	}
	if x.Kind == driver.MoveToDeadLetter && s.dead {
		return driver.Unsupported("dead-lettering a dead letter")
	}
	if (x.Kind == driver.Abandon || x.Kind == driver.Release) && x.Delay > 0 && (s.dead || s.q.caps.AbandonDelay == driver.None) {
		return driver.Unsupported("a delay for a dead letter or in a session")
	}
	if err := s.claim(r); err != nil {
		return err
	}
	return s.conclude(r, s.carryOut(ctx, x, r))
}

// conclude notes how a settlement ended, and returns its error.
func (s *source) conclude(r *receipt, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.unanswered, r.settling = false, false
	if err == nil {
		delete(s.held, r)
		s.doubles.settle(r, r.removed)
		return nil
	}
	r.settled = false
	switch driver.KindOf(err) {
	case driver.LockLost, driver.SessionLost:
		r.lost = true
	}
	return err
}

// claim marks r as settled, for this call to make true.
func (s *source) claim(r *receipt) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, mine := s.held[r]
	switch {
	case r.settled && r.unanswered:
		return driver.Errorf(driver.Unavailable, "the broker has not yet answered to a settlement before this")
	case r.settled:
		return &driver.Error{Kind: driver.Settled}
	case !mine || r.lost:
		return &driver.Error{Kind: driver.LockLost}
	}
	r.settled, r.settling, r.unanswered = true, true, false
	return nil
}

// carryOut settles at the broker.
func (s *source) carryOut(ctx context.Context, x *driver.Settlement, r *receipt) error {
	switch x.Kind {
	case driver.Complete:
		return s.remove(ctx, r)
	case driver.Abandon, driver.Release: // see "Counts" in the package comment
		if x.Delay > 0 {
			return s.postpone(ctx, x.Delay, r)
		}
		return s.finish(ctx, r, abandon)
	case driver.MoveToDeadLetter:
		return s.deadLetter(ctx, r, x.Reason, x.Description)
	}
	return driver.Errorf(driver.Invalid, "settlement of kind %d", x.Kind)
}

// settling settles a message by a receiver.
type settling func(context.Context, receiving, *azservicebus.ReceivedMessage) error

func complete(ctx context.Context, r receiving, m *azservicebus.ReceivedMessage) error {
	return r.CompleteMessage(ctx, m, nil)
}

func abandon(ctx context.Context, r receiving, m *azservicebus.ReceivedMessage) error {
	return r.AbandonMessage(ctx, m, nil)
}

func (s *source) deadLetter(ctx context.Context, r *receipt, reason, description string) error {
	o := &azservicebus.DeadLetterOptions{
		Reason: &reason, ErrorDescription: &description,
		PropertiesToModify: map[string]any{propertyQueue: s.q.name, propertyAt: time.Now().UTC().Format("2006-01-02T15:04:05.000Z07:00")},
	}
	return s.finish(ctx, r, func(ctx context.Context, by receiving, m *azservicebus.ReceivedMessage) error {
		return by.DeadLetterMessage(ctx, m, o)
	})
}

// postpone schedules a copy and completes the original: a crash in between leaves
// both. The count goes on in the copy, and ends where the broker's own would.
func (s *source) postpone(ctx context.Context, delay time.Duration, r *receipt) error {
	if r.Count >= s.q.settings.MaxDeliveries {
		return s.deadLetter(ctx, r, "max_deliveries", "delivered as often as the queue allows")
	}
	// There must be no copy if the original is gone: first check that the message is
	// still this receiver's.
	if _, err := s.renewOne(ctx, r); err != nil {
		return err
	}
	m, bytes, err := s.postponed(r, delay)
	if err != nil {
		return err
	}
	err = s.q.transmit(ctx, bytes, func(ctx context.Context, sender *azservicebus.Sender) error {
		s.mu.Lock()
		if r.copies++; r.copies > 1 {
			s.doubles.expect(r.copyID)
		}
		s.mu.Unlock()
		return sender.SendAMQPAnnotatedMessage(ctx, m, nil)
	})
	if err != nil {
		return err
	}
	return s.remove(ctx, r)
}

// remove completes a message that is handled, or that a copy stands for.
func (s *source) remove(ctx context.Context, r *receipt) error {
	err := s.finish(ctx, r, complete)
	r.removed = err == nil
	return err
}

// complete completes, in the background, a delivery that is not handed out. Called under mu.
func (s *source) complete(r *receipt) { s.completeIf(r, func(context.Context) bool { return true }) }

// completeBeside is complete for a delivery that may be a double of other, which was handed
// out. It is one if the broker renews other's lock: then other was at no other receiver, and r
// is no dead letter that was sent again. Called under mu.
func (s *source) completeBeside(r, other *receipt) {
	s.completeIf(r, func(ctx context.Context) bool {
		if _, err := s.renewOne(ctx, other); err == nil {
			return true
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.doubles.isHandled(r) // it was settled meanwhile
	})
}

// completeIf completes a delivery if that is certain to lose nothing. Otherwise it comes again
// when its lock is over.
func (s *source) completeIf(r *receipt, certain func(context.Context) bool) {
	if !s.q.b.begin(1) {
		return
	}
	go func() {
		defer s.q.b.calls.Done()
		ctx, cancel := context.WithTimeout(s.over, callLimit)
		defer cancel()
		if certain(ctx) && s.settleOne(ctx, &driver.Settlement{Delivery: &r.Delivery, Kind: driver.Complete}) == nil {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.held, r)
	}()
}

// finish settles over the link that the message came by and, if that is dead,
// by its lock token over the management link of another.
func (s *source) finish(ctx context.Context, r *receipt, do settling) error {
	why := errLinkLost
	if r.link.up.Err() == nil {
		if why = s.overLink(r, do); why == nil {
			return nil
		}
		err := s.fault(ctx, why)
		switch kind := driver.KindOf(err); {
		case ctx.Err() != nil, kind == driver.Closed, !isStuck(why) && kind != driver.Unavailable && kind != driver.Other:
			return err
		}
		s.broken(r.link)
	}
	if s.lose != nil {
		s.lose()
		return &driver.Error{Kind: driver.SessionLost, Err: errors.New(text(why))}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, settleTokens)
	defer cancel()
	token := &azservicebus.ReceivedMessage{LockToken: r.m.LockToken}
	err := s.at(ctx, func(ctx context.Context, controlLink *azservicebus.Receiver) error {
		attempt, cancel := context.WithTimeout(ctx, settleToken)
		defer cancel()
		// Renewing first, because that fails at once if the connection is
		// dead, and because it tells whether the message is held.
		err := controlLink.RenewMessageLock(attempt, token, nil)
		if err == nil {
			err = do(attempt, controlLink, token)
		}
		if err != nil && attempt.Err() != nil && ctx.Err() == nil {
			return errNoAnswer
		}
		return err
	})
	return s.fault(ctx, err)
}

var (
	errLinkLost = errors.New("the link that the message came by is lost")
	errNoAnswer = errors.New("the broker does not answer")
)

// overLink settles over the message's own link. It ends with that link and in time,
// and not with the context of the caller, which need not wait for it.
func (s *source) overLink(r *receipt, do settling) error {
	ctx := r.link.limit.context(r.link.up, settleOverLink)
	if s.lose != nil {
		began := time.Now()
		err := do(ctx, r.link.r, r.m)
		s.q.b.sessions.note(began, err)
		return err
	}
	return s.once(ctx, func(ctx context.Context, controlLink *azservicebus.Receiver) error { return do(ctx, controlLink, r.m) })
}

// renew extends the locks of messages, several at once.
func (s *source) renew(ctx context.Context, all []*driver.Delivery) []driver.RenewResult {
	renewed := make([]time.Time, len(all)) // of calls that may outlast this one
	bounded, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	outcomes := s.q.b.each(ctx, len(all), callWidth, func(i int) error {
		r, ok := all[i].Receipt.(*receipt)
		if !ok {
			return driver.Errorf(driver.Invalid, "the delivery is of another driver")
		}
		if s.over.Err() != nil {
			return errClosed()
		}
		s.mu.Lock()
		_, mine := s.held[r]
		settled, lost := r.settled, r.lost
		s.mu.Unlock()
		switch {
		case settled:
			return &driver.Error{Kind: driver.Settled}
		case !mine || lost:
			return &driver.Error{Kind: driver.LockLost}
		}
		t, err := s.renewOne(bounded, r)
		renewed[i] = t
		return err
	})
	results := make([]driver.RenewResult, len(all))
	for i, d := range all {
		x := &results[i]
		if x.Err = outcomes[i].err; x.Err == nil {
			x.LockedUntil = renewed[i]
			d.LockedUntil = x.LockedUntil
		}
	}
	return results
}

// renewOne extends the lock of one message of a queue. The SDK writes the end of
// the lock into the message it is given, so it gets another each time.
func (s *source) renewOne(ctx context.Context, r *receipt) (time.Time, error) {
	m := &azservicebus.ReceivedMessage{LockToken: r.m.LockToken}
	if r.link.up.Err() == nil {
		*m = *r.m // with the name of its link, which counts as in use by this
	}
	asked := time.Now()
	err := s.at(ctx, func(ctx context.Context, controlLink *azservicebus.Receiver) error {
		return controlLink.RenewMessageLock(ctx, m, nil)
	})
	if err != nil {
		err = s.fault(ctx, err)
		if driver.KindOf(err) == driver.LockLost {
			s.mu.Lock()
			r.lost = true
			s.mu.Unlock()
		}
		return time.Time{}, err
	}
	var toldUntil time.Time
	if m.LockedUntil != nil {
		toldUntil = *m.LockedUntil
	}
	return s.q.lock.end(asked, toldUntil), nil
}

// release gives everything back that is held, and forgets it. The source is over,
// so that no Receive adds to it once it has the turn.
func (s *source) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, releaseTime)
	defer cancel()
	for range cap(s.turns) { // until no Receive is under way
		select {
		case s.turns <- struct{}{}: // for good
		case <-ctx.Done():
		}
	}
	s.mu.Lock()
	held := make([]*receipt, 0, len(s.held))
	for r := range s.held {
		if !r.settled && !r.lost && r.link.up.Err() == nil {
			held = append(held, r)
		}
		r.settled = true
	}
	clear(s.held)
	s.mu.Unlock()
	// The latest first, so that the earliest is where it was.
	slices.SortFunc(held, func(a, b *receipt) int { return cmp.Compare(sequence(b.m), sequence(a.m)) })
	for _, r := range held {
		if err := s.giveBack(ctx, r); err != nil && driver.KindOf(classify(ctx, err)) != driver.LockLost {
			return // their locks run out
		}
	}
}

func (s *source) giveBack(ctx context.Context, r *receipt) error {
	if s.lose != nil {
		return r.link.r.AbandonMessage(ctx, r.m, nil)
	}
	return s.once(ctx, func(ctx context.Context, controlLink *azservicebus.Receiver) error {
		return controlLink.AbandonMessage(ctx, r.m, nil)
	})
}

func sequence(m *azservicebus.ReceivedMessage) int64 {
	if m.SequenceNumber == nil {
		return 0
	}
	return *m.SequenceNumber
}
