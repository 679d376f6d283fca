package sqsqueue

import (
	"context"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// session is a message group that one caller holds.
//
// While a message of the group is in flight, SQS hands out no other: that is the lock,
// and to renew the session is to renew its messages in flight. Between messages nothing
// is in flight. Then the session is exclusive in this queue value only, and another
// process may take the group's next message. That process gets it alone, and after all
// earlier messages were settled.
type session struct {
	q  *queue
	g  *group
	id string
	// unnamed: it is the group of one message without a session.
	unnamed bool

	// Guarded by queue.mu.
	until  time.Time
	lost   bool
	closed bool
}

var _ driver.UnnamedSession = (*session)(nil)

// newSession takes a group that is ready; under mu.
func newSession(q *queue, g *group) *session {
	s := &session{q: q, g: g, id: g.waiting[0].d.SessionID}
	if s.unnamed = s.id == ""; s.unnamed {
		s.id = g.key // a message without a session is one of its own
	}
	s.until = g.waiting[0].lease
	return s
}

// AcceptSession implements driver.Queue, for FIFO queues and "" only: SQS cannot
// be asked for one message group.
func (q *queue) AcceptSession(ctx context.Context, id string, wait time.Duration) (driver.Session, error) {
	if err := q.check(ctx); err != nil {
		return nil, err
	}
	switch {
	case q.caps.Sessions == driver.None:
		return nil, driver.Unsupported("sessions on this queue")
	case id != "":
		return nil, driver.Unsupported("accepting a session by its ID")
	}
	o, err := q.await(ctx, &waiter{accept: true, max: 1}, wait)
	if err != nil {
		return nil, err
	}
	if o.session == nil {
		return nil, &driver.Error{Kind: driver.NoSession}
	}
	return o.session, nil
}

// ID implements driver.Session.
func (s *session) ID() string { return s.id }

// Unnamed implements driver.UnnamedSession.
func (s *session) Unnamed() bool { return s.unnamed }

// LockedUntil implements driver.Session.
func (s *session) LockedUntil() time.Time {
	s.q.mu.Lock()
	defer s.q.mu.Unlock()
	return s.until
}

// check returns why the session is over; under mu.
func (s *session) check(now time.Time) error {
	switch {
	case s.closed || s.q.closed:
		return &driver.Error{Kind: driver.Closed}
	case s.lost:
		return &driver.Error{Kind: driver.SessionLost}
	case !now.Before(s.until):
		s.q.lose(s.g, now)
		return &driver.Error{Kind: driver.SessionLost}
	}
	return nil
}

func (s *session) usable(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.q.mu.Lock()
	defer s.q.mu.Unlock()
	return s.check(time.Now())
}

// Receive implements driver.Source. It returns nothing before wait is over if messages
// of other sessions came instead and no call takes them: see groupWait.
func (s *session) Receive(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	return s.q.receive(ctx, &waiter{session: s, max: max}, wait)
}

// Settle implements driver.Source.
func (s *session) Settle(ctx context.Context, list []driver.Settlement) []error {
	return s.q.Settle(ctx, list)
}

// Renew implements driver.Source: it renews the session.
func (s *session) Renew(ctx context.Context, d []*driver.Delivery) []driver.RenewResult {
	return s.q.Renew(ctx, d)
}

// RenewSession implements driver.Session. Without a message in flight there is
// nothing to renew at SQS, and only the holder's claim in this process lives on.
func (s *session) RenewSession(ctx context.Context) (time.Time, error) {
	if err := ctx.Err(); err != nil {
		return time.Time{}, err
	}
	begin := time.Now()
	s.q.mu.Lock()
	if err := s.check(begin); err != nil {
		s.q.mu.Unlock()
		return time.Time{}, err
	}
	set := s.g.all()
	s.q.mu.Unlock()
	errs := s.q.extend(ctx, set)
	s.q.mu.Lock()
	defer s.q.mu.Unlock()
	if err := s.check(time.Now()); err != nil {
		return time.Time{}, err
	}
	for i, err := range errs {
		if err != nil && (set[i].state == held || set[i].state == waiting) {
			return time.Time{}, err
		}
	}
	s.until = s.g.end(begin.Add(s.q.lock))
	return s.until, nil
}

// Close implements driver.Session.
func (s *session) Close(ctx context.Context) error {
	q := s.q
	q.mu.Lock()
	if s.closed {
		q.mu.Unlock()
		return nil
	}
	s.closed = true
	var back []*receipt
	if !q.closed && s.g.owner == s {
		now := time.Now()
		for _, r := range s.g.all() {
			if r.live(now) {
				back = append(back, r)
			}
		}
		q.lose(s.g, now)
		q.dispatch(now) // ends a Receive of this session
	}
	q.mu.Unlock()
	return q.release(ctx, back)
}
