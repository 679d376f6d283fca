package sqlitequeue

import (
	"context"
	"errors"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/sqldriver"
	"github.com/queue-runtime/queue/sqlite/internal/sqlitefile"
)

const peekRows = `SELECT ` + deliveryColumns + `, ` + contentColumns + `
	FROM messages LEFT JOIN contents ON contents.id = messages.content AND ` + contentSize + ` <= ?4
	WHERE messages.queue = ?1 AND messages.seq > ?2 ORDER BY messages.seq LIMIT +?3`

const (
	selectCounts = `SELECT state, n FROM counts WHERE queue = ?1`
	countAll     = `SELECT sum(n) FROM counts WHERE queue = ?1`
	selectOldest = `SELECT coalesce(died, enqueued) FROM messages WHERE queue = ?1 AND state = 0 ORDER BY seq LIMIT 1`
)

// errEnough ends a query early.
var errEnough = errors.New("enough")

// Peek looks at messages in the order of storage. A cursor is the place of the
// last message seen; it stays good when messages come and go.
func (q *Queue) Peek(ctx context.Context, cursor string, limit int) ([]*driver.Delivery, string, error) {
	after, err := sqldriver.AfterCursor(cursor, limit)
	if err != nil {
		return nil, "", err
	}
	if err := q.holder.Usable(ctx); err != nil {
		return nil, "", err
	}
	if err := q.catchUp(ctx); err != nil {
		return nil, "", err
	}
	limit = min(limit, claimMessages)
	var out []*driver.Delivery
	var next string
	err = q.broker.file.Read(ctx, func(c *sqlitefile.Conn) error {
		out, next = nil, ""
		bytes := 0
		err := c.Query(peekRows, func(r sqlitefile.Row) error {
			if len(out) == limit || bytes > claimBytes {
				next = out[len(out)-1].BrokerID
				return errEnough // the rest may have large bodies: do not read them
			}
			d, _ := parseDelivery(r)
			d.Undecodable = !parseContent(r, deliveryWidth, &d.Message)
			bytes += len(d.Body)
			out = append(out, d)
			return nil
		}, q.queue, after, int64(limit)+1, q.contentLimit()) // one more, to know whether there is one
		if errors.Is(err, errEnough) {
			err = nil
		}
		return err
	})
	return out, next, err
}

// Stats counts without looking at messages. What waits for its turn in a session
// counts as ready.
func (q *Queue) Stats(ctx context.Context) (st driver.Stats, err error) {
	if err := q.holder.Usable(ctx); err != nil {
		return driver.Stats{}, err
	}
	if err := q.catchUp(ctx); err != nil {
		return driver.Stats{}, err
	}
	err = q.broker.file.Snapshot(ctx, func(c *sqlitefile.Conn) error {
		st = driver.Stats{}
		// Zeros would be taken for a queue that is empty.
		if err := q.exists(c); err != nil {
			return err
		}
		err := c.Query(selectCounts, func(r sqlitefile.Row) error {
			switch n := r.Int(1); r.Int(0) {
			case stateReady, stateQueued:
				st.Ready += n
			case stateScheduled, stateDelayed:
				st.Scheduled += n
			case stateLocked:
				st.InFlight += n
			}
			return nil
		}, q.queue)
		if err != nil {
			return err
		}
		if q.queue > 0 {
			if st.DeadLetters, err = c.Int(countAll, -q.queue); err != nil {
				return err
			}
		}
		oldest, err := c.Int(selectOldest, q.queue)
		if oldest != 0 {
			st.Oldest = time.Unix(0, oldest)
		}
		// More was due than one transaction sweeps.
		d, err2 := findDue(c, q.queue)
		first := d.first()
		st.Approximate = first != 0 && first <= time.Now().UnixNano()
		if err == nil {
			err = err2
		}
		return err
	})
	return st, err
}
