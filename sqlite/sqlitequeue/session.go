package sqlitequeue

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/sqldriver"
	"github.com/queue-runtime/queue/sqlite/internal/sqlitefile"
)

const (
	sessionTaken = `SELECT EXISTS (SELECT 1 FROM sessions WHERE queue = ?1 AND session = ?2 AND token IS NOT NULL)
		OR EXISTS (SELECT 1 FROM messages INDEXED BY messages_session WHERE queue = ?1 AND session = ?2 AND state = 3)`

	nextSession = `SELECT session FROM messages INDEXED BY messages_turn
		WHERE queue = ?1 AND turn IS NOT NULL ORDER BY turn, seq LIMIT 1`

	firstReady = `SELECT session IS NULL FROM messages INDEXED BY messages_ready WHERE queue = ?1 AND state = 0 ORDER BY seq LIMIT 1`

	holdSession = `INSERT INTO sessions (queue, session, token, until, touched) VALUES (?1, ?2, ?3, ?4, ?5)
		ON CONFLICT DO UPDATE SET token = ?3, until = ?4, touched = ?5`

	// While a receiver holds the session, none of its messages has a turn.
	withdrawTurn = `UPDATE messages INDEXED BY messages_session SET state = 4, turn = NULL WHERE queue = ?1 AND session = ?2 AND state = 0`

	renewSession = `UPDATE sessions SET until = ?5 WHERE queue = ?1 AND session = ?2 AND token = ?3 AND until > ?4`

	selectHeld = `SELECT ` + rowColumns + ` FROM messages INDEXED BY messages_session
		WHERE queue = ?1 AND session = ?2 AND state = 3 ORDER BY seq`

	// Triggers give back its messages and pass on the turn.
	dropSession  = `DELETE FROM sessions WHERE queue = ?1 AND session = ?2 AND state IS NULL`
	leaveSession = `UPDATE sessions SET token = NULL, until = NULL, touched = ?3 WHERE queue = ?1 AND session = ?2`

	selectState = `SELECT state FROM sessions WHERE queue = ?1 AND session = ?2 AND token = ?3 AND until > ?4`
	updateState = `UPDATE sessions SET state = ?5, touched = ?4 WHERE queue = ?1 AND session = ?2 AND token = ?3 AND until > ?4`

	pruneStates = `DELETE FROM sessions WHERE queue = ?1 AND session IN
		(SELECT session FROM sessions AS s INDEXED BY sessions_idle WHERE queue = ?1 AND token IS NULL AND touched <= ?2
			AND NOT EXISTS (SELECT 1 FROM messages INDEXED BY messages_session WHERE messages.queue = ?1 AND messages.session = s.session)
			ORDER BY touched LIMIT +?3)`
)

// nextQueued are the first messages of a session that its holder may have: those
// before any that waits out a delay.
const nextQueued = `SELECT seq FROM messages INDEXED BY messages_session
	WHERE queue = ?1 AND session = ?2 AND state = 4 AND seq < coalesce((SELECT min(seq)
		FROM messages INDEXED BY messages_session WHERE queue = ?1 AND session = ?2 AND state = 2), 9223372036854775807)
	ORDER BY seq`

const (
	claimQueued = `UPDATE messages SET state = 3, due = NULL, token = ?3, turn = NULL,
		deliveries = min(deliveries, 2147483646) + 1, max_deliveries = ?4
		WHERE queue = ?1 AND seq IN (` + nextQueued + ` LIMIT +?5)
		RETURNING ` + deliveryColumns

	anyQueued = `SELECT (SELECT until FROM sessions WHERE queue = ?1 AND session = ?2 AND token = ?3), EXISTS (` + nextQueued + `)`

	selectUntil = `SELECT until FROM sessions WHERE queue = ?1 AND session = ?2 AND token = ?3`
)

// hold is the lock on a session.
type hold struct {
	source *source // of the session
	id     string
	token  []byte
}

// session is a held session. Its deliveries are locked for as long as it is.
type session struct {
	source
	opener *Queue
	until  atomic.Int64 // end of the lock, Unix nanoseconds
}

var _ driver.StatefulSession = (*session)(nil)

func newSession(q *Queue, id string, token []byte, until time.Time) *session {
	s := &session{source: newSource(q.broker, q.queue, q.name, q.settings), opener: q}
	s.hold = &hold{source: &s.source, id: id, token: token}
	s.until.Store(until.UnixNano())
	return s
}

// AcceptSession takes the lock of a session.
func (q *Queue) AcceptSession(ctx context.Context, id string, wait time.Duration) (driver.Session, error) {
	if q.queue < 0 {
		return nil, driver.Unsupported("sessions of a dead-letter queue")
	}
	if err := q.holder.Usable(ctx); err != nil {
		return nil, err
	}
	token := sqldriver.NewToken()
	var s *session
	var own []*driver.Delivery // a message that is a session of its own
	err := q.await(ctx, wait, func() (look lookResult, err error) {
		if free, look, err := q.probeSession(ctx, id); err != nil || !free {
			return look, err
		}
		var taken string
		var claimed []*driver.Delivery
		var until time.Time
		for behind := true; behind && err == nil; {
			if err := q.holder.Usable(ctx); err != nil {
				return look, err
			}
			err = q.broker.file.WriteUnsynced(ctx, func(c *sqlitefile.Conn) (err error) {
				now := time.Now()
				taken, claimed, until = "", nil, now.Add(q.settings.Lock)
				if behind, err = q.sweepAll(c, now.UnixNano()); err != nil || behind {
					return err
				}
				if id == "" {
					if claimed, err = q.claimSessionless(c, token, now); err != nil || len(claimed) > 0 {
						return err
					}
				}
				taken, err = q.accept(c, id, token, now, until)
				if err == nil && taken == "" {
					look.next, err = q.nextDue(c)
				}
				return err
			})
		}
		if err == nil && taken != "" {
			s = newSession(q, taken, token, until)
		}
		if err == nil && len(claimed) > 0 {
			own, err = q.hand(ctx, claimed)
		}
		look.done = taken != "" || len(own) > 0
		return look, err
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

// probeSession looks, without writing, whether accept may have a result, so that
// waiting calls do not compete for the lock on the file.
func (q *Queue) probeSession(ctx context.Context, id string) (free bool, look lookResult, err error) {
	if err := q.holder.Usable(ctx); err != nil {
		return false, look, err
	}
	err = q.broker.file.Read(ctx, func(c *sqlitefile.Conn) error {
		if id == "" {
			ready, err := c.Int(anyReady, q.queue)
			if free = ready != 0; err != nil {
				return err
			}
		} else {
			taken, err := c.Int(sessionTaken, q.queue, id)
			if free = taken == 0; err != nil {
				return err
			}
		}
		var err error
		look.next, err = q.nextDue(c)
		return err
	})
	free = free || look.next != 0 && look.next <= time.Now().UnixNano()
	return free, look, err
}

// claimSessionless locks the first message that can be delivered if it has no session, so
// that neither such messages nor sessions keep the others waiting for long.
func (q *Queue) claimSessionless(c *sqlitefile.Conn, token []byte, now time.Time) ([]*driver.Delivery, error) {
	if first, err := c.Int(firstReady, q.queue); err != nil || first == 0 {
		return nil, err
	}
	return q.claimReady(c, token, 1, now)
}

// accept returns the name of the session that it took, empty for none.
func (q *Queue) accept(c *sqlitefile.Conn, id string, token []byte, now, until time.Time) (string, error) {
	if id == "" {
		next, err := c.Text(nextSession, q.queue)
		if err != nil || next == "" {
			return "", err
		}
		id = next
	} else if taken, err := c.Int(sessionTaken, q.queue, id); err != nil || taken != 0 {
		return "", err
	}
	if _, err := c.Exec(holdSession, q.queue, id, token, until.UnixNano(), now.UnixNano()); err != nil {
		return "", err
	}
	_, err := c.Exec(withdrawTurn, q.queue, id)
	return id, err
}

// endSession releases what is locked under a session's lock, and the lock.
func (s *source) endSession(c *sqlitefile.Conn, id string, now int64) error {
	rows, err := rowsOf(c, selectHeld, s.queue, id)
	if err != nil {
		return err
	}
	for _, m := range rows {
		if err := s.release(c, m, 0, now); err != nil {
			return err
		}
	}
	if n, err := c.Exec(dropSession, s.queue, id); err != nil || n > 0 {
		return err
	}
	_, err = c.Exec(leaveSession, s.queue, id, now)
	return err
}

// probe is source.probe for a session.
func (h *hold) probe(ctx context.Context) (ready bool, look lookResult, err error) {
	s := h.source
	err = s.broker.file.Read(ctx, func(c *sqlitefile.Conn) error {
		ready, look.next = false, 0
		_, err := c.One(anyQueued, func(r sqlitefile.Row) error {
			if until := r.Int(0); until <= time.Now().UnixNano() {
				return &driver.Error{Kind: driver.SessionLost}
			}
			ready = r.Int(1) != 0
			return nil
		}, s.queue, h.id, h.token)
		if err != nil {
			return err
		}
		look.next, err = s.nextDue(c)
		return err
	})
	ready = ready || look.next != 0 && look.next <= time.Now().UnixNano()
	return ready, look, err
}

// claim is claimReady for a session.
func (h *hold) claim(c *sqlitefile.Conn, limit int, now time.Time) ([]*driver.Delivery, error) {
	s := h.source
	until, err := h.end(c, now)
	if err != nil {
		return nil, err
	}
	return s.take(c, h.token, until, now, claimQueued,
		s.queue, h.id, h.token, int64(s.settings.MaxDeliveries), int64(limit))
}

// end returns when the session's lock ends.
func (h *hold) end(c *sqlitefile.Conn, now time.Time) (time.Time, error) {
	until, err := c.Int(selectUntil, h.source.queue, h.id, h.token)
	if err == nil && until <= now.UnixNano() {
		err = &driver.Error{Kind: driver.SessionLost}
	}
	return time.Unix(0, until), err
}

func (s *session) ID() string             { return s.hold.id }
func (s *session) LockedUntil() time.Time { return time.Unix(0, s.until.Load()) }

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
	err := s.write(ctx, renewSession, func(now time.Time) any {
		until = now.Add(s.settings.Lock)
		return until.UnixNano()
	})
	if err != nil {
		return time.Time{}, err
	}
	s.until.Store(until.UnixNano())
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
	err = s.broker.file.Read(ctx, func(c *sqlitefile.Conn) error {
		state = nil
		found, err := c.One(selectState, func(r sqlitefile.Row) error { state = r.Bytes(0); return nil },
			s.queue, s.hold.id, s.hold.token, time.Now().UnixNano())
		if err == nil && !found {
			err = &driver.Error{Kind: driver.SessionLost}
		}
		return err
	})
	return state, err
}

// SetState implements driver.StatefulSession. A state is at most as large as a
// body. Empty is nil.
func (s *session) SetState(ctx context.Context, state []byte) error {
	if err := s.holder.Usable(ctx); err != nil {
		return err
	}
	if len(state) > s.settings.MaxBody {
		return driver.NewTooLarge("session state", len(state), s.settings.MaxBody)
	}
	return s.write(ctx, updateState, func(time.Time) any { return blob(state) })
}

// write changes the session's row while the lock is held. The statement takes
// the queue, the session, the token, the time and a value.
func (s *session) write(ctx context.Context, statement string, value func(now time.Time) any) error {
	return s.broker.file.Write(ctx, func(c *sqlitefile.Conn) error {
		now := time.Now()
		n, err := c.Exec(statement, s.queue, s.hold.id, s.hold.token, now.UnixNano(), value(now))
		if err == nil && n == 0 {
			err = &driver.Error{Kind: driver.SessionLost}
		}
		return err
	})
}

// Close gives up the session and everything received in it.
func (s *session) Close(ctx context.Context) error {
	if _, first := s.holder.Shut(); !first {
		return nil
	}
	s.opener.sessions.Remove(s)
	err := sqldriver.GiveBack(ctx, errHeld, func(ctx context.Context) error {
		return s.broker.file.Write(ctx, func(c *sqlitefile.Conn) error {
			// Even if its time is over, as long as no other receiver has it.
			until, err := c.Int(selectUntil, s.queue, s.hold.id, s.hold.token)
			if err != nil || until == 0 {
				return err
			}
			return s.endSession(c, s.hold.id, time.Now().UnixNano())
		})
	})
	s.broker.arrivals.Notify(s.queue, -s.queue)
	return err
}
