package sqlitequeue

import (
	"context"
	"time"

	"github.com/queue-runtime/queue/sqlite/internal/sqlitefile"
)

// sweepStep bounds what one transaction sweeps; more is left for the next.
const sweepStep = 256

// nextDue has the times at which something next happens to a queue by itself.
const nextDue = `SELECT
	(SELECT min(due) FROM messages INDEXED BY messages_due WHERE queue = ?1 AND due IS NOT NULL),
	(SELECT min(expires) FROM messages INDEXED BY messages_expiring WHERE queue = ?1 AND expires IS NOT NULL AND state <> 3),
	(SELECT min(until) FROM sessions INDEXED BY sessions_held WHERE queue = ?1 AND until IS NOT NULL)`

const (
	selectDue = `SELECT ` + rowColumns + ` FROM messages INDEXED BY messages_due
		WHERE queue = ?1 AND due <= ?2 ORDER BY due, seq LIMIT ?3`

	selectExpired = `SELECT seq FROM messages INDEXED BY messages_expiring
		WHERE queue = ?1 AND expires <= ?2 AND state <> 3 ORDER BY expires, seq LIMIT ?3`

	selectOver = `SELECT session FROM sessions INDEXED BY sessions_held
		WHERE queue = ?1 AND until <= ?2 ORDER BY until LIMIT ?3`
)

// dueTimes are nextDue's, Unix nanoseconds, 0 for never.
type dueTimes struct{ message, expiry, session int64 }

func findDue(c *sqlitefile.Conn, queue int64) (d dueTimes, err error) {
	_, err = c.One(nextDue, func(r sqlitefile.Row) error {
		d = dueTimes{r.Int(0), r.Int(1), r.Int(2)}
		return nil
	}, queue)
	return d, err
}

// first is the earliest, 0 for never.
func (d dueTimes) first() int64 {
	var first int64
	for _, t := range [...]int64{d.message, d.expiry, d.session} {
		if t != 0 && (first == 0 || t < first) {
			first = t
		}
	}
	return first
}

// sweep does what is due: locks that are over, messages whose time has come or
// is over. Every transaction that looks for a message begins with it, so that
// no process has to run for another's locks to end.
func (s *source) sweep(c *sqlitefile.Conn, now int64) error {
	d, err := findDue(c, s.queue)
	if err != nil {
		return err
	}
	over := func(t int64) bool { return t != 0 && t <= now }
	if over(d.session) {
		if err := s.sweepSessions(c, now); err != nil {
			return err
		}
	}
	if over(d.message) {
		rows, err := rowsOf(c, selectDue, s.queue, now, int64(sweepStep))
		if err != nil {
			return err
		}
		for _, m := range rows {
			if err := s.release(c, m, 0, now); err != nil {
				return err
			}
		}
	}
	if over(d.expiry) {
		return s.sweepExpired(c, now)
	}
	return nil
}

func (s *source) sweepExpired(c *sqlitefile.Conn, now int64) error {
	var all []int64
	err := c.Query(selectExpired, func(r sqlitefile.Row) error { all = append(all, r.Int(0)); return nil }, s.queue, now, int64(sweepStep))
	if err != nil {
		return err
	}
	for _, seq := range all {
		if err := s.expire(c, seq, now); err != nil {
			return err
		}
	}
	return nil
}

func (s *source) sweepSessions(c *sqlitefile.Conn, now int64) error {
	var all []string
	err := c.Query(selectOver, func(r sqlitefile.Row) error { all = append(all, r.Text(0)); return nil }, s.queue, now, int64(sweepStep))
	if err != nil {
		return err
	}
	for _, id := range all {
		if err := s.endSession(c, id, now); err != nil {
			return err
		}
	}
	return nil
}

// rowsOf collects the rows of a query before anything changes them.
func rowsOf(c *sqlitefile.Conn, query string, args ...any) (all []row, err error) {
	err = c.Query(query, func(r sqlitefile.Row) error { all = append(all, parseRow(r)); return nil }, args...)
	return all, err
}

// catchUp sweeps where something is due, for calls that only look.
func (s *source) catchUp(ctx context.Context) error {
	for _, of := range s.sweptQueues() {
		var due bool
		err := s.broker.file.Read(ctx, func(c *sqlitefile.Conn) error {
			d, err := findDue(c, of.queue)
			first := d.first()
			due = first != 0 && first <= time.Now().UnixNano()
			return err
		})
		if err != nil {
			return err
		}
		if !due {
			continue
		}
		err = s.broker.file.WriteUnsynced(ctx, func(c *sqlitefile.Conn) error { return of.sweep(c, time.Now().UnixNano()) })
		if err != nil {
			return err
		}
		s.broker.bells.ring(of.queue, -of.queue)
	}
	return nil
}

// sweptQueues are the queues on which what s sees depends: with dead letters,
// those that come from the queue, too.
func (s *source) sweptQueues() []*source {
	if s.queue > 0 {
		return []*source{s}
	}
	return []*source{{broker: s.broker, queue: -s.queue, name: s.name, cfg: s.cfg}, s}
}
