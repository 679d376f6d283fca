package sqlitequeue

import (
	"context"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/sqlite/internal/sqlitefile"
)

// sweepStep bounds what one transaction sweeps, so that others get their turn;
// more is left for the next.
const sweepStep = 256

// selectNextDue has the times at which something next happens to a queue by itself.
const selectNextDue = `SELECT
	(SELECT min(due) FROM messages INDEXED BY messages_due WHERE queue = ?1 AND due IS NOT NULL),
	(SELECT min(expires) FROM messages INDEXED BY messages_expiring WHERE queue = ?1 AND expires IS NOT NULL AND state <> 3),
	(SELECT min(until) FROM sessions INDEXED BY sessions_held WHERE queue = ?1 AND until IS NOT NULL)`

const (
	selectDue = `SELECT ` + rowColumns + ` FROM messages INDEXED BY messages_due
		WHERE queue = ?1 AND due <= ?2 ORDER BY due, seq LIMIT +?3`

	selectExpired = `SELECT seq FROM messages INDEXED BY messages_expiring
		WHERE queue = ?1 AND expires <= ?2 AND state <> 3 ORDER BY expires, seq LIMIT +?3`

	selectOver = `SELECT session FROM sessions INDEXED BY sessions_held
		WHERE queue = ?1 AND until <= ?2 ORDER BY until LIMIT +?3`
)

// dueTimes are selectNextDue's, Unix nanoseconds, 0 for never.
type dueTimes struct{ message, expiry, session int64 }

func findDue(c *sqlitefile.Conn, queue int64) (d dueTimes, err error) {
	_, err = c.One(selectNextDue, func(r sqlitefile.Row) error {
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
// no process has to run for another's locks to end. It reports more when there
// may be more of it than one transaction takes: what is ready then may be over,
// and must not be delivered before the next sweep.
func (s *source) sweep(c *sqlitefile.Conn, now int64) (more bool, err error) {
	d, err := findDue(c, s.queue)
	if err != nil {
		return false, err
	}
	for _, of := range [...]struct {
		due   int64
		sweep func(c *sqlitefile.Conn, now int64) (int, error)
	}{
		{d.session, s.sweepSessions}, {d.message, s.sweepDue}, {d.expiry, s.sweepExpired},
	} {
		if of.due == 0 || of.due > now {
			continue
		}
		n, err := of.sweep(c, now)
		if err != nil {
			return false, err
		}
		more = more || n == sweepStep
	}
	return more, nil
}

// sweepAll sweeps what s depends on; see sweptQueues.
func (s *source) sweepAll(c *sqlitefile.Conn, now int64) (more bool, err error) {
	for _, of := range s.sweptQueues() {
		m, err := of.sweep(c, now)
		if err != nil {
			return false, err
		}
		more = more || m
	}
	return more, nil
}

func (s *source) sweepDue(c *sqlitefile.Conn, now int64) (int, error) {
	rows, err := rowsOf(c, selectDue, s.queue, now, int64(sweepStep))
	if err != nil {
		return 0, err
	}
	for _, m := range rows {
		if err := s.release(c, m, 0, now); err != nil {
			return 0, err
		}
	}
	return len(rows), nil
}

func (s *source) sweepExpired(c *sqlitefile.Conn, now int64) (int, error) {
	var all []int64
	err := c.Query(selectExpired, func(r sqlitefile.Row) error { all = append(all, r.Int(0)); return nil }, s.queue, now, int64(sweepStep))
	if err != nil {
		return 0, err
	}
	for _, seq := range all {
		if err := s.expire(c, seq, now); err != nil {
			return 0, err
		}
	}
	return len(all), nil
}

func (s *source) sweepSessions(c *sqlitefile.Conn, now int64) (int, error) {
	var all []string
	err := c.Query(selectOver, func(r sqlitefile.Row) error { all = append(all, r.Text(0)); return nil }, s.queue, now, int64(sweepStep))
	if err != nil {
		return 0, err
	}
	for _, id := range all {
		if err := s.endSession(c, id, now); err != nil {
			return 0, err
		}
	}
	return len(all), nil
}

// nextDue is when, in Unix nanoseconds, time alone next changes what s may
// receive; 0 for never. If the queue is gone it says so: a call would wait for ever.
func (s *source) nextDue(c *sqlitefile.Conn) (next int64, err error) {
	if err := s.exists(c); err != nil {
		return 0, err
	}
	for _, of := range s.sweptQueues() {
		d, err := findDue(c, of.queue)
		if err != nil {
			return 0, err
		}
		if first := d.first(); first != 0 && (next == 0 || first < next) {
			next = first
		}
	}
	return next, nil
}

const queueExists = `SELECT EXISTS (SELECT 1 FROM queues WHERE id = ?1)`

// exists fails with driver.NotFound if the queue was removed, by another program.
func (s *source) exists(c *sqlitefile.Conn) error {
	n, err := c.Int(queueExists, max(s.queue, -s.queue))
	if err == nil && n == 0 {
		err = driver.Errorf(driver.NotFound, "the queue was removed")
	}
	return err
}

// rowsOf collects the rows of a query before anything changes them.
func rowsOf(c *sqlitefile.Conn, query string, args ...any) (all []row, err error) {
	err = c.Query(query, func(r sqlitefile.Row) error { all = append(all, parseRow(r)); return nil }, args...)
	return all, err
}

// catchUp sweeps if something is due, for calls that only look.
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
		err = s.broker.file.WriteUnsynced(ctx, func(c *sqlitefile.Conn) error {
			_, err := of.sweep(c, time.Now().UnixNano())
			return err
		})
		if err != nil {
			return err
		}
		s.broker.arrivals.Notify(of.queue, -of.queue)
	}
	return nil
}

// sweptQueues are the queues on which what s sees depends: with dead letters,
// those that come from the queue, too.
func (s *source) sweptQueues() []*source {
	if s.queue > 0 {
		return []*source{s}
	}
	return []*source{{broker: s.broker, queue: -s.queue, name: s.name, settings: s.settings}, s}
}
