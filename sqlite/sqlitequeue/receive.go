package sqlitequeue

import (
	"context"
	"slices"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/sqldriver"
	"github.com/queue-runtime/queue/sqlite/internal/sqlitefile"
)

const (
	// claimMessages and claimBytes bound what one Receive takes, in messages
	// and in bytes of bodies; the first message is taken whatever its size.
	claimMessages = 256
	claimBytes    = 32 << 20
)

// Limits are +?n: SQLite compiles a statement with LIMIT ?n anew each time it is run, to
// plan it for the value.
const claimReady = `UPDATE messages SET state = 3, due = ?2, token = ?3, turn = NULL,
	deliveries = min(deliveries, 2147483646) + 1, max_deliveries = ?4
	WHERE queue = ?1 AND seq IN
		(SELECT seq FROM messages INDEXED BY messages_ready WHERE queue = ?1 AND state = 0 ORDER BY seq LIMIT +?5)
	RETURNING ` + deliveryColumns

const anyReady = `SELECT EXISTS (SELECT 1 FROM messages INDEXED BY messages_ready WHERE queue = ?1 AND state = 0)`

// Receive implements driver.Source.
func (s *source) receive(ctx context.Context, limit int, wait time.Duration) ([]*driver.Delivery, error) {
	if limit < 1 {
		return nil, driver.Errorf(driver.Invalid, "max is %d, it must be at least 1", limit)
	}
	if err := s.holder.Usable(ctx); err != nil {
		return nil, err
	}
	var out []*driver.Delivery
	err := s.await(ctx, wait, func() (look lookResult, err error) {
		if err := s.holder.Usable(ctx); err != nil {
			return look, err
		}
		if !s.flowing.Load() {
			ready, next, err := s.probe(ctx)
			if look = next; err != nil || !ready {
				return look, err
			}
		}
		out, look.next, err = s.claim(ctx, min(limit, claimMessages))
		look.done = len(out) > 0
		s.flowing.Store(look.done)
		return look, err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// probe looks, without writing, whether claiming may have a result, so that
// waiting calls do not compete for the lock on the file.
func (s *source) probe(ctx context.Context) (ready bool, look lookResult, err error) {
	if s.hold != nil {
		return s.hold.probe(ctx)
	}
	err = s.broker.file.Read(ctx, func(c *sqlitefile.Conn) error {
		n, err := c.Int(anyReady, s.queue)
		if err != nil {
			return err
		}
		ready = n != 0
		look.next, err = s.nextDue(c)
		return err
	})
	ready = ready || look.next != 0 && look.next <= time.Now().UnixNano()
	return ready, look, err
}

// claim takes the messages that can be received now. If there are none, next is when
// time alone may change that, given the locks that other receivers hold now: a call
// that lost a message to another receiver must wake when that receiver's lock ends.
func (s *source) claim(ctx context.Context, limit int) (out []*driver.Delivery, next int64, err error) {
	token := sqldriver.NewToken()
	for behind := true; behind; {
		if err := s.holder.Usable(ctx); err != nil {
			return nil, 0, err
		}
		err := s.broker.file.WriteUnsynced(ctx, func(c *sqlitefile.Conn) (err error) {
			out, next = nil, 0
			now := time.Now()
			if behind, err = s.sweepAll(c, now.UnixNano()); err != nil || behind {
				return err
			}
			if s.hold != nil {
				out, err = s.hold.claim(c, limit, now)
			} else {
				out, err = s.claimReady(c, token, limit, now)
			}
			if err == nil && len(out) == 0 {
				next, err = s.nextDue(c)
			}
			return err
		})
		if err != nil {
			return nil, 0, err
		}
	}
	out, err = s.hand(ctx, out)
	return out, next, err
}

// hand notes what was claimed for the caller, or gives it back if the caller has left or
// s is closed.
func (s *source) hand(ctx context.Context, out []*driver.Delivery) ([]*driver.Delivery, error) {
	return s.holder.Hand(ctx, out, func(all []*sqldriver.Receipt) {
		_ = s.giveBack(ctx, all, driver.Release) // if this fails the locks run out
	})
}

// claimReady locks up to limit ready messages under token.
func (s *source) claimReady(c *sqlitefile.Conn, token []byte, limit int, now time.Time) ([]*driver.Delivery, error) {
	until := now.Add(s.settings.Lock)
	return s.take(c, token, until, now, claimReady,
		s.queue, until.UnixNano(), token, int64(s.settings.MaxDeliveries), int64(limit))
}

// take runs a statement that locks messages and returns deliveryColumns, and
// loads what belongs to them. until is the end of the lock.
func (s *source) take(c *sqlitefile.Conn, token []byte, until, now time.Time, claim string, args ...any) ([]*driver.Delivery, error) {
	type taken struct {
		d       *driver.Delivery
		seq     int64
		content int64
	}
	var all []taken
	err := c.Query(claim, func(r sqlitefile.Row) error {
		d, content := parseDelivery(r)
		all = append(all, taken{d, r.Int(0), content})
		return nil
	}, args...)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b taken) int { return int(a.seq - b.seq) }) // RETURNING has no order
	out := make([]*driver.Delivery, 0, len(all))
	bytes := 0
	for _, t := range all {
		if bytes > claimBytes {
			m := row{seq: t.seq, state: stateReady, session: t.d.SessionID != ""}
			if err := s.uncount(c, &m); err != nil {
				return nil, err
			}
			if err := s.release(c, m, 0, now.UnixNano()); err != nil {
				return nil, err
			}
			continue
		}
		if err := s.load(c, t.d, t.content); err != nil {
			return nil, err
		}
		bytes += len(t.d.Body)
		t.d.LockedUntil = until
		r := s.holder.NewReceipt(t.seq, token, t.d.SessionID)
		if s.hold == nil {
			r.SetUntil(until)
		}
		t.d.Receipt = r
		out = append(out, t.d)
	}
	return out, nil
}

// load reads the contents of a delivery. If they are missing, too large, or not
// as they were stored, the message is delivered as undecodable: it must neither block the queue nor
// be deleted.
func (s *source) load(c *sqlitefile.Conn, d *driver.Delivery, content int64) error {
	ok := false
	_, err := c.One(selectContent, func(r sqlitefile.Row) error {
		ok = parseContent(r, 0, &d.Message)
		return nil
	}, content, s.contentLimit())
	d.Undecodable = !ok
	return err
}
