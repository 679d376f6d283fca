package sqlitequeue

import (
	"context"
	"strconv"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/sqlite/internal/sqlitefile"
)

const (
	nextSeq = `UPDATE counts SET n = n + ?1 WHERE queue = 0 AND state = 0 RETURNING n`

	insertMessage = `INSERT INTO messages
		(queue, seq, state, due, deliveries, max_deliveries, enqueued, expires, content, session)
		VALUES (?1, ?2, ?3, ?4, 0, 0, ?5, ?6, ?2, ?7)`

	countStored = `SELECT sum(n) FROM counts WHERE queue IN (?1, -?1)`

	findDuplicate = `SELECT seq FROM dedup WHERE queue = ?1 AND id = ?2 AND until > ?3`
	noteDuplicate = `INSERT OR REPLACE INTO dedup (queue, id, seq, until) VALUES (?1, ?2, ?3, ?4)`
	pruneDedup    = `DELETE FROM dedup WHERE (queue, id) IN
		(SELECT queue, id FROM dedup INDEXED BY dedup_until WHERE until <= ?1 ORDER BY until LIMIT +?2)`
)

const (
	// pageSize is PRAGMA page_size of files that this package makes.
	pageSize = 4096
	// pageReserve is how many pages below MaxBytes Send stops: receiving,
	// settling and dead-lettering may split a page of an index.
	pageReserve = 64
	// rowOverhead is what a message takes beside its bytes, roughly.
	rowOverhead = 512
)

// Send stores messages in one transaction.
func (q *Queue) Send(ctx context.Context, m []*driver.Message) []driver.SendResult {
	results := make([]driver.SendResult, len(m))
	fail := func(err error) []driver.SendResult {
		for i := range results {
			if results[i].Err == nil {
				results[i] = driver.SendResult{Err: err}
			}
		}
		return results
	}
	if q.queue < 0 {
		return fail(driver.Unsupported("sending to a dead-letter queue"))
	}
	if err := q.holder.Usable(ctx); err != nil {
		return fail(err)
	}
	if len(m) > MaxBatch {
		return fail(&driver.Error{Kind: driver.TooLarge, Err: &driver.TooLargeError{What: "batch", Size: len(m), Limit: MaxBatch, Unit: "messages"}})
	}
	contents := make([]content, len(m))
	total, good := 0, 0
	failed := make(map[string]bool) // sessions with a message that cannot be stored
	for i := range m {
		if m[i] != nil && failed[m[i].SessionID] {
			results[i].Err = &driver.Error{Kind: driver.NotSent}
			continue
		}
		if results[i].Err = q.check(m[i]); results[i].Err == nil {
			contents[i] = newContent(m[i])
			total += contents[i].size
			good++
		} else if m[i] != nil && m[i].SessionID != "" {
			failed[m[i].SessionID] = true
		}
	}
	if limit := q.Capabilities().MaxBatchBytes; total > limit {
		return fail(driver.NewTooLarge("batch", total, limit))
	}
	if good == 0 {
		return results
	}
	invalid := append([]driver.SendResult(nil), results...)
	err := q.broker.file.Write(ctx, func(c *sqlitefile.Conn) error {
		copy(results, invalid)
		return q.store(c, contents, results, total, good)
	})
	if err != nil {
		copy(results, invalid)
		return fail(err)
	}
	q.broker.arrivals.Notify(q.queue)
	return results
}

// store stores those messages whose result has no error, and sets the result.
func (q *Queue) store(c *sqlitefile.Conn, contents []content, results []driver.SendResult, total, good int) error {
	if err := q.exists(c); err != nil {
		return err
	}
	now := time.Now().UnixNano()
	room, full, err := q.room(c, total+good*rowOverhead)
	if err != nil {
		return err
	}
	seq, err := c.Int(nextSeq, int64(good))
	if err != nil {
		return err
	}
	seq -= int64(good)
	for i := range contents {
		if results[i].Err != nil {
			continue
		}
		seq++
		stored, err := q.storeOne(c, &contents[i], seq, now, room > 0)
		if err != nil {
			return err
		}
		switch {
		case stored == 0:
			results[i].Err = driver.Errorf(driver.Full, "%s", full)
		case stored == seq:
			room--
			fallthrough
		default:
			results[i].BrokerID = brokerID(stored)
		}
	}
	if q.settings.DedupWindow > 0 {
		// Twice as fast as it grows.
		_, err = c.Exec(pruneDedup, now, int64(2*good+8))
	}
	return err
}

// storeOne stores a message as seq, unless it is a repeat or there is no room.
// It returns the seq of the stored message, the seq of the first if it is a
// repeat, and 0 without room.
func (q *Queue) storeOne(c *sqlitefile.Conn, m *content, seq, now int64, room bool) (int64, error) {
	dedup := m.message.DedupID
	if dedup == "" {
		dedup = m.message.ID
	}
	if q.settings.DedupWindow > 0 {
		first, err := c.Int(findDuplicate, q.queue, dedup, now)
		if err != nil || first != 0 {
			return first, err
		}
	}
	if !room {
		return 0, nil
	}
	if err := m.insert(c, seq); err != nil {
		return 0, err
	}
	state, due, from := int64(stateReady), any(nil), now
	if m.message.SessionID != "" {
		state = stateQueued
	}
	if t := nanos(m.message.NotBefore); !m.message.NotBefore.IsZero() && t > now {
		state, due, from = stateScheduled, t, t
	}
	life := q.settings.Retention
	if t := m.message.TTL; t > 0 {
		life = min(life, t)
	}
	if _, err := c.Exec(insertMessage, q.queue, seq, state, due, now, later(from, life), text(m.message.SessionID)); err != nil {
		return 0, err
	}
	if q.settings.DedupWindow > 0 {
		if _, err := c.Exec(noteDuplicate, q.queue, dedup, seq, later(now, q.settings.DedupWindow)); err != nil {
			return 0, err
		}
	}
	return seq, nil
}

// room returns how many more messages the queue takes, none when the file or its disk has
// not room for size bytes, and what is full beyond that.
func (q *Queue) room(c *sqlitefile.Conn, size int) (messages int64, full string, err error) {
	const limited = "the queue has reached its limit"
	total, err := c.Int("PRAGMA page_count")
	if err != nil {
		return 0, "", err
	}
	if limit := q.broker.maxBytes; limit > 0 {
		free, err := c.Int("PRAGMA freelist_count")
		if err != nil {
			return 0, "", err
		}
		if (total-free+pageReserve)*pageSize+int64(size) > limit {
			return 0, limited, nil
		}
	}
	if s, ok := q.broker.file.Space(total * pageSize); ok && s.Free < s.Reserve+int64(size) {
		return 0, "the disk has only the room that receiving and settling need", nil
	}
	if q.settings.MaxMessages == 0 {
		return 1 << 62, limited, nil
	}
	stored, err := c.Int(countStored, q.queue)
	return int64(q.settings.MaxMessages) - stored, limited, err
}

// check refuses what this broker does not carry.
func (q *Queue) check(m *driver.Message) error {
	if err := m.Check(); err != nil {
		return err
	}
	switch {
	case len(m.Body) > q.settings.MaxBody:
		return driver.NewTooLarge("body", len(m.Body), q.settings.MaxBody)
	case metadata(m) > maxMetadata:
		return driver.NewTooLarge("attributes", metadata(m), maxMetadata)
	case q.settings.SessionOnly && m.SessionID == "":
		return driver.Errorf(driver.Invalid, "the queue takes only messages with a session ID")
	}
	return nil
}

// Size returns the bytes of the body and of every string.
func (q *Queue) Size(m *driver.Message) int { return m.Bytes() }

func brokerID(seq int64) string { return strconv.FormatInt(seq, 10) }
