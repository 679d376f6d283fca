package postgresqueue

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/sqldriver"
)

// hold is the lock on a session.
type hold struct {
	id    string
	token []byte
	until atomic.Pointer[time.Time] // end of the lock
}

func (h *hold) end() time.Time { return *h.until.Load() }

// session is a session under this process's lock. Its deliveries are locked for as long
// as it is.
type session struct {
	source
	opener *Queue
}

var _ driver.StatefulSession = (*session)(nil)

func newSession(q *Queue, id string, token []byte, until time.Time) *session {
	s := &session{source: newSource(q.broker, q.queue, q.name, q.settings), opener: q}
	s.hold = &hold{id: id, token: token}
	s.hold.until.Store(&until)
	return s
}

// AcceptSession takes the lock of a session, with an empty id of the next one that is free
// and has messages, and waits for up to wait until there is one.
func (q *Queue) AcceptSession(ctx context.Context, id string, wait time.Duration) (driver.Session, error) {
	if q.queue < 0 {
		return nil, driver.Unsupported("sessions of a dead-letter queue")
	}
	if err := q.holder.Usable(ctx); err != nil {
		return nil, err
	}
	if id != "" {
		if err := q.check(&driver.Message{ID: "session", SessionID: id}); err != nil {
			return nil, err
		}
	}
	var s *session
	var own []*driver.Delivery // a message that is a session of its own
	err := q.await(ctx, wait, func() (bool, error) {
		if err := q.holder.Usable(ctx); err != nil {
			return false, err
		}
		var err error
		s, own, err = q.accept(ctx, id)
		return s != nil || len(own) > 0, err
	})
	if len(own) > 0 {
		return driver.NewMessageSession(q, own[0], q.holder.Closing()), nil
	}
	switch {
	case err != nil && s == nil:
		return nil, err
	case s == nil && id == "":
		return nil, &driver.Error{Kind: driver.NoSession}
	case s == nil:
		return nil, &driver.Error{Kind: driver.SessionHeld}
	case !q.sessions.Add(s):
		_ = s.Close(ctx)
		return nil, &driver.Error{Kind: driver.Closed}
	case ctx.Err() != nil:
		_ = s.Close(ctx)
		return nil, ctx.Err()
	}
	return s, nil
}

// accept returns the session that it took, or a message that is a session of its own.
func (q *Queue) accept(ctx context.Context, id string) (*session, []*driver.Delivery, error) {
	whole, cancel := unhurried(ctx)
	defer cancel()
	token := sqldriver.NewToken()
	var begin time.Time // the lock begins later there
	var out []*driver.Delivery
	err := q.broker.request(whole, func(ctx context.Context, c *conn) error {
		begin = time.Now()
		rows, err := c.Query(ctx, q.broker.call("accept_session", "$1::bigint, $2::text, $3::bytea, $4::bigint, $5::integer"),
			q.queue, id, token, q.settings.Lock.Microseconds(), q.settings.MaxDeliveries)
		if err != nil {
			return err
		}
		out, err = q.deliveries(rows)
		return err
	})
	switch {
	case len(out) == 0 && ctx.Err() != nil:
		return nil, nil, ctx.Err()
	case len(out) == 0:
		return nil, nil, err
	case out[0].SessionID != "":
		return newSession(q, out[0].SessionID, token, begin.Add(q.settings.Lock)), nil, nil
	}
	q.lock(out, token, begin)
	out, err = q.hand(ctx, out)
	return nil, out, err
}

func (s *session) ID() string             { return s.hold.id }
func (s *session) LockedUntil() time.Time { return s.hold.end() }

func (s *session) Receive(ctx context.Context, limit int, wait time.Duration) ([]*driver.Delivery, error) {
	return s.receive(ctx, limit, wait)
}

func (s *session) Settle(ctx context.Context, list []driver.Settlement) []error {
	return s.settle(ctx, list)
}

func (s *session) RenewSession(ctx context.Context) (time.Time, error) {
	if err := s.holder.Usable(ctx); err != nil {
		return time.Time{}, err
	}
	var until time.Time
	err := s.broker.request(ctx, func(ctx context.Context, c *conn) error {
		until = time.Now().Add(s.settings.Lock) // the lock begins later there
		_, err := c.Exec(ctx, s.broker.call("renew_session", "$1::bigint, $2::text, $3::bytea, $4::bigint"),
			s.queue, s.hold.id, s.hold.token, s.settings.Lock.Microseconds())
		return err
	})
	if err != nil {
		return time.Time{}, err
	}
	s.hold.until.Store(&until)
	s.broker.changed(1)
	return until, nil
}

// Renew renews the session, once for all of them.
func (s *session) Renew(ctx context.Context, list []*driver.Delivery) []driver.RenewResult {
	return s.holder.RenewBy(ctx, list, s.RenewSession)
}

// State implements driver.StatefulSession.
func (s *session) State(ctx context.Context) (state []byte, err error) {
	if err := s.holder.Usable(ctx); err != nil {
		return nil, err
	}
	err = s.broker.request(ctx, func(ctx context.Context, c *conn) error {
		return c.QueryRow(ctx, s.broker.call("session_state", "$1::bigint, $2::text, $3::bytea"), s.queue, s.hold.id, s.hold.token).Scan(&state)
	})
	return state, err
}

// SetState implements driver.StatefulSession. A state is at most as large as a body.
// Empty is nil.
func (s *session) SetState(ctx context.Context, state []byte) error {
	if err := s.holder.Usable(ctx); err != nil {
		return err
	}
	if len(state) > s.settings.MaxBody {
		return driver.NewTooLarge("session state", len(state), s.settings.MaxBody)
	}
	if len(state) == 0 {
		state = nil
	}
	return s.broker.request(ctx, func(ctx context.Context, c *conn) error {
		_, err := c.Exec(ctx, s.broker.call("set_session_state", "$1::bigint, $2::text, $3::bytea, $4::bytea"), s.queue, s.hold.id, s.hold.token, state)
		return err
	})
}

// Close gives up the session and everything received in it.
func (s *session) Close(ctx context.Context) error {
	if _, first := s.holder.Shut(); !first {
		return nil
	}
	s.opener.sessions.Remove(s)
	err := sqldriver.GiveBack(ctx, errSilent, func(ctx context.Context) error {
		return s.broker.request(ctx, func(ctx context.Context, c *conn) error {
			_, err := c.Exec(ctx, s.broker.call("close_session", "$1::bigint, $2::text, $3::bytea"), s.queue, s.hold.id, s.hold.token)
			return err
		})
	})
	s.broker.announce(s.queue, -s.queue)
	return err
}
