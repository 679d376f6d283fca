package sqlitequeue

import (
	"time"

	"github.com/queue-runtime/queue/internal/sqldriver"
	"github.com/queue-runtime/queue/sqlite/internal/sqlitefile"
)

// row is what decides what becomes of a message.
type row struct {
	seq           int64
	state         int64
	deliveries    int64
	maxDeliveries int64 // 0: no limit
	expires       int64 // 0: never
	session       bool
}

const rowColumns = `seq, state, deliveries, max_deliveries, expires, session IS NOT NULL`

func parseRow(r sqlitefile.Row) row {
	return row{r.Int(0), r.Int(1), r.Int(2), r.Int(3), r.Int(4), r.Int(5) != 0}
}

// stillLocked is true of a row that delivery ?3 holds at time ?4: by its own
// lock, or by its session's.
const stillLocked = `queue = ?1 AND seq = ?2 AND state = 3 AND token = ?3 AND (due > ?4 OR due IS NULL AND EXISTS
	(SELECT 1 FROM sessions WHERE sessions.queue = ?1 AND sessions.session = messages.session
		AND sessions.token = ?3 AND sessions.until > ?4))`

const selectLocked = `SELECT ` + rowColumns + ` FROM messages WHERE ` + stillLocked

// findLocked returns the row of a delivery, found false when its lock is over.
func findLocked(c *sqlitefile.Conn, s *source, r *sqldriver.Receipt, now int64) (m row, found bool, err error) {
	found, err = c.One(selectLocked, func(r sqlitefile.Row) error { m = parseRow(r); return nil }, s.queue, r.Seq, r.Token[:], now)
	return m, found, err
}

const setFree = `UPDATE messages SET state = ?3, due = ?4, token = NULL, turn = NULL WHERE queue = ?1 AND seq = ?2`

// release makes a message available that was locked, or whose time has come: at
// once, after delay, or, if it has had its deliveries or its time, as a dead
// letter.
func (s *source) release(c *sqlitefile.Conn, m row, delay time.Duration, now int64) error {
	switch {
	case s.queue > 0 && m.maxDeliveries > 0 && m.deliveries >= m.maxDeliveries && m.state == stateLocked:
		return s.deadLetter(c, m.seq, reasonMaxDeliveries, "the message reached the queue's limit of deliveries", now)
	case m.expires > 0 && m.expires <= now:
		return s.expire(c, m.seq, now)
	case delay > 0:
		_, err := c.Exec(setFree, s.queue, m.seq, int64(stateDelayed), later(now, delay))
		return err
	}
	state := int64(stateReady)
	if m.session && s.queue > 0 {
		state = stateQueued
	}
	_, err := c.Exec(setFree, s.queue, m.seq, state, nil)
	return err
}

// Reasons that the broker itself gives.
const (
	reasonMaxDeliveries = "max_deliveries"
	reasonExpired       = "expired"
)

const (
	moveToDead = `UPDATE messages SET queue = -queue, seq = ?3, state = 0, due = NULL, token = NULL, turn = NULL,
		deliveries = 0, max_deliveries = 0, expires = ?4, reason = ?5, description = ?6, source = ?7, died = ?8
		WHERE queue = ?1 AND seq = ?2`

	removeMessage = `DELETE FROM messages WHERE queue = ?1 AND seq = ?2`
)

// deadLetter moves a message to the dead-letter queue. It is one change of one row: no
// crash can leave two or none.
func (s *source) deadLetter(c *sqlitefile.Conn, seq int64, reason, description string, now int64) error {
	place, err := c.Int(nextSeq, int64(1))
	if err != nil {
		return err
	}
	var expires any
	if s.settings.DeadLetterRetention > 0 {
		expires = later(now, s.settings.DeadLetterRetention)
	}
	_, err = c.Exec(moveToDead, s.queue, seq, place, expires, reason, description, s.name, now)
	return err
}

// expire ends the life of a message that is not locked.
func (s *source) expire(c *sqlitefile.Conn, seq, now int64) error {
	if s.queue > 0 {
		return s.deadLetter(c, seq, reasonExpired, "the message was not settled within its time to live", now)
	}
	_, err := c.Exec(removeMessage, s.queue, seq)
	return err
}
