package driver

import (
	"context"
	"sync"
	"time"
)

// messageSession is the session of one message without a SessionID.
type messageSession struct {
	source  Source
	closing <-chan struct{} // of the source
	d       *Delivery       // the receiver's from Receive on
	held    Delivery        // a copy of it for calls of the session's own; never changed

	over chan struct{} // closed by Close

	mu    sync.Mutex // guards what follows
	state messageState
	until time.Time
}

// messageState says what became of the message of a messageSession.
type messageState int

const (
	messageWaits messageState = iota // Receive has not returned it yet
	messageHandedOut
	messageSettled
	messageLeft // the session is closed
)

// NewMessageSession returns the session that d is on its own. It is for drivers whose
// queues hold messages with and without a SessionID: d has none, and source, which
// delivered it, holds it. closing is closed when source is.
//
// The session brings d once. Its lock is d's lock. If it is closed before it brought d, d
// is given back by Release, otherwise by Abandon.
func NewMessageSession(source Source, d *Delivery, closing <-chan struct{}) UnnamedSession {
	return &messageSession{source: source, closing: closing, d: d, held: *d, over: make(chan struct{}), until: d.LockedUntil}
}

// ID is the broker's name of the message.
func (s *messageSession) ID() string { return s.held.BrokerID }

// Unnamed implements UnnamedSession.
func (s *messageSession) Unnamed() bool { return true }

// LockedUntil implements Session.
func (s *messageSession) LockedUntil() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.until
}

// check returns why the session is over, nil if it is not. It ends with its lock, unless
// the message is settled: then there is nothing to lose.
func (s *messageSession) check(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-s.closing:
		return &Error{Kind: Closed}
	case <-s.over:
		return &Error{Kind: Closed}
	default:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != messageSettled && !s.until.IsZero() && !time.Now().Before(s.until) {
		return &Error{Kind: SessionLost}
	}
	return nil
}

// Receive implements Source. After the message was received none will come.
func (s *messageSession) Receive(ctx context.Context, max int, wait time.Duration) ([]*Delivery, error) {
	if max < 1 {
		return nil, Errorf(Invalid, "max is %d, it must be at least 1", max)
	}
	if err := s.check(ctx); err != nil {
		return nil, err
	}
	if s.become(messageHandedOut, messageWaits) {
		s.d.LockedUntil = s.LockedUntil() // the session may have been renewed since
		return []*Delivery{s.d}, nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-s.closing:
	case <-s.over:
	}
	return nil, s.check(ctx)
}

// become changes the state from one to another, and reports whether it was that one.
func (s *messageSession) become(to, from messageState) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != from {
		return false
	}
	s.state = to
	return true
}

// Settle implements Source.
func (s *messageSession) Settle(ctx context.Context, list []Settlement) []error {
	select {
	case <-s.over:
		return repeat[error](&Error{Kind: Closed}, len(list))
	default:
	}
	errs := s.source.Settle(ctx, list)
	for i, err := range errs {
		if err == nil && list[i].Delivery == s.d {
			s.become(messageSettled, messageHandedOut)
		}
	}
	return errs
}

// Renew implements Source.
func (s *messageSession) Renew(ctx context.Context, list []*Delivery) []RenewResult {
	select {
	case <-s.over:
		return repeat(RenewResult{Err: &Error{Kind: Closed}}, len(list))
	default:
	}
	results := s.source.Renew(ctx, list)
	for i, d := range list {
		if d == s.d && results[i].Err == nil {
			s.extend(results[i].LockedUntil)
		}
	}
	return results
}

func (s *messageSession) extend(until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.until = until
}

func repeat[T any](result T, n int) []T {
	results := make([]T, n)
	for i := range results {
		results[i] = result
	}
	return results
}

// RenewSession implements Session. There is nothing to renew once the message is settled.
func (s *messageSession) RenewSession(ctx context.Context) (time.Time, error) {
	if err := s.check(ctx); err != nil {
		return time.Time{}, err
	}
	d := s.held // Renew writes to what it is given
	renewed := s.source.Renew(ctx, []*Delivery{&d})[0]
	switch KindOf(renewed.Err) {
	case Settled:
		return s.LockedUntil(), nil
	case LockLost:
		return time.Time{}, &Error{Kind: SessionLost}
	}
	if renewed.Err == nil {
		s.extend(renewed.LockedUntil)
	}
	return renewed.LockedUntil, renewed.Err
}

// Close implements Session.
func (s *messageSession) Close(ctx context.Context) error {
	s.mu.Lock()
	before := s.state
	s.state = messageLeft
	s.mu.Unlock()
	if before == messageLeft {
		return nil
	}
	close(s.over)
	back := Settlement{Delivery: &s.held, Kind: Release}
	switch before {
	case messageSettled, messageLeft:
		return nil
	case messageHandedOut:
		back.Kind = Abandon
	case messageWaits:
	}
	err := s.source.Settle(context.WithoutCancel(ctx), []Settlement{back})[0]
	switch KindOf(err) {
	case Settled, LockLost, Closed: // it is not held any more
		return nil
	default:
		return err
	}
}
