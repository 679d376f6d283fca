package sbqueue

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/queue-runtime/queue/driver"
)

// acceptAgain is how long a session that is in other hands is left alone before
// it is asked for again, and acceptOnce how long one attempt may take: the SDK's
// own would last as long as its context.
const (
	acceptAgain = 250 * time.Millisecond
	acceptOnce  = 30 * time.Second
)

// session is one session of a queue.
type session struct {
	*source
	r *azservicebus.SessionReceiver

	closing sync.Once
	err     error
}

// AcceptSession takes a session's lock. The broker waits for the next session by
// itself; for a named one that is held it is asked again.
func (q *queue) AcceptSession(ctx context.Context, id string, wait time.Duration) (driver.Session, error) {
	if !q.settings.Sessions {
		return nil, driver.Unsupported("sessions: this queue has none")
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if q.source.over.Err() != nil {
		return nil, errClosed()
	}
	if wait < leastWait {
		wait = leastWait
	}
	deadline := time.Now().Add(wait)
	for {
		// A last attempt at the deadline itself still gets a moment.
		r, err := q.accept(ctx, id, min(max(time.Until(deadline), leastWait), acceptOnce))
		if err == nil {
			s := &session{source: newSource(q, r, false), r: r}
			if err := q.b.keep(s); err != nil {
				_ = r.Close(ctx)
				return nil, err
			}
			return s, nil
		}
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case q.source.over.Err() != nil:
			return nil, errClosed()
		}
		kind := driver.KindOf(classify(ctx, err))
		over := !time.Now().Before(deadline)
		nothing := errors.Is(err, context.DeadlineExceeded) || kind == driver.Unavailable && isTimeout(err)
		switch {
		case id != "" && kind == driver.SessionHeld:
			if over {
				return nil, &driver.Error{Kind: driver.SessionHeld}
			}
		case nothing:
			if over {
				return nil, &driver.Error{Kind: driver.NoSession}
			}
		case kind == driver.Unavailable:
			// The SDK gives the connection up when another call is cancelled at
			// the wrong moment.
			if over {
				return nil, classify(ctx, err)
			}
		default:
			return nil, classify(ctx, err)
		}
		timer := time.NewTimer(min(acceptAgain, max(time.Until(deadline), 0)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		case <-q.source.over.Done():
			timer.Stop()
			return nil, errClosed()
		}
	}
}

func (q *queue) accept(ctx context.Context, id string, wait time.Duration) (*azservicebus.SessionReceiver, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	unhook := context.AfterFunc(q.source.over, cancel)
	defer unhook()
	if id == "" {
		return q.b.client.AcceptNextSessionForQueue(ctx, q.name, nil)
	}
	return q.b.client.AcceptSessionForQueue(ctx, q.name, id, nil)
}

// isTimeout reports the broker's own word that there is no session.
func isTimeout(err error) bool {
	var sb *azservicebus.Error
	return errors.As(err, &sb) && sb.Code == azservicebus.CodeTimeout
}

func (s *session) ID() string { return s.r.SessionID() }

func (s *session) LockedUntil() time.Time { return s.r.LockedUntil() }

// Receive returns the session's messages. A session's link that is lost is not
// made again by the SDK: its lock is gone with it.
func (s *session) Receive(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
	if err := s.alive(); err != nil {
		return nil, err
	}
	d, err := s.receive(ctx, max, wait)
	if err != nil {
		return nil, s.lost(err)
	}
	until := s.r.LockedUntil()
	for _, d := range d {
		d.LockedUntil = until
	}
	return d, nil
}

func (s *session) alive() error {
	switch {
	case s.over.Err() != nil:
		return errClosed()
	case !time.Now().Before(s.r.LockedUntil()):
		return &driver.Error{Kind: driver.SessionLost}
	}
	return nil
}

// lost turns the errors of a dead session link into what they mean.
func (s *session) lost(err error) error {
	switch driver.KindOf(err) {
	case driver.Unavailable, driver.Closed, driver.LockLost, driver.SessionHeld:
		if s.over.Err() != nil {
			return errClosed()
		}
		return &driver.Error{Kind: driver.SessionLost, Err: err}
	}
	return err
}

func (s *session) Settle(ctx context.Context, all []driver.Settlement) []error {
	if err := s.alive(); err != nil {
		errs := make([]error, len(all))
		for i := range errs {
			errs[i] = err
			if driver.KindOf(err) == driver.Closed {
				continue
			}
			if r, ok := all[i].Delivery.Receipt.(*receipt); ok {
				s.mu.Lock()
				settled := r.settled
				s.mu.Unlock()
				if settled {
					errs[i] = &driver.Error{Kind: driver.Settled}
				} else if driver.KindOf(err) == driver.SessionLost {
					errs[i] = &driver.Error{Kind: driver.LockLost}
				}
			}
		}
		return errs
	}
	return s.settleInOrder(ctx, all)
}

// Renew renews the session, which holds its messages.
func (s *session) Renew(ctx context.Context, all []*driver.Delivery) ([]time.Time, []error) {
	until := make([]time.Time, len(all))
	errs := make([]error, len(all))
	if len(all) == 0 {
		return until, errs
	}
	t, err := s.RenewSession(ctx)
	for i, d := range all {
		r, ok := d.Receipt.(*receipt)
		s.mu.Lock()
		settled := ok && r.settled
		s.mu.Unlock()
		switch {
		case settled:
			errs[i] = &driver.Error{Kind: driver.Settled}
		case err != nil:
			errs[i] = err
			if driver.KindOf(err) == driver.SessionLost {
				errs[i] = &driver.Error{Kind: driver.LockLost, Err: err}
			}
		default:
			d.LockedUntil, until[i] = t, t
		}
	}
	return until, errs
}

func (s *session) RenewSession(ctx context.Context) (time.Time, error) {
	if err := s.alive(); err != nil {
		return time.Time{}, err
	}
	rctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	if err := s.r.RenewSessionLock(rctx, nil); err != nil {
		err = classify(ctx, err)
		if driver.KindOf(err) == driver.LockLost {
			err = &driver.Error{Kind: driver.SessionLost, Err: err}
		}
		return time.Time{}, err
	}
	return s.r.LockedUntil(), nil
}

// State and SetState are the broker's session state.
func (s *session) State(ctx context.Context) ([]byte, error) {
	if err := s.alive(); err != nil {
		return nil, err
	}
	b, err := s.r.GetSessionState(ctx, nil)
	if err != nil {
		return nil, s.lost(classify(ctx, err))
	}
	if len(b) == 0 {
		return nil, nil
	}
	return b, nil
}

func (s *session) SetState(ctx context.Context, state []byte) error {
	if err := s.alive(); err != nil {
		return err
	}
	if err := s.r.SetSessionState(ctx, state, nil); err != nil {
		return s.lost(classify(ctx, err))
	}
	return nil
}

// Close gives back what is held and gives the session up.
func (s *session) Close(ctx context.Context) error {
	s.closing.Do(func() {
		alive := s.alive() == nil
		s.end()
		if alive {
			s.release(context.WithoutCancel(ctx))
		}
		s.q.b.forget(s)
		err := classify(ctx, s.r.Close(ctx))
		switch driver.KindOf(err) {
		case driver.SessionLost, driver.LockLost, driver.Closed, driver.Unavailable:
			return // it is given up in any case
		}
		if alive { // the link of a lost session fails to close in many ways
			s.err = err
		}
	})
	return s.err
}
