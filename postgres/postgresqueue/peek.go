package postgresqueue

import (
	"context"
	"math"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/sqldriver"
)

// Peek looks at messages in the order of storage. A cursor is the place of the last
// message seen; it stays good when messages come and go.
func (q *Queue) Peek(ctx context.Context, cursor string, limit int) ([]*driver.Delivery, string, error) {
	after, err := sqldriver.AfterCursor(cursor, limit)
	if err != nil {
		return nil, "", err
	}
	if err := q.holder.Usable(ctx); err != nil {
		return nil, "", err
	}
	var out []*driver.Delivery
	err = q.broker.request(ctx, func(ctx context.Context, c *conn) error {
		rows, err := c.Query(ctx, q.broker.call("peek", "$1::bigint, $2::bigint, $3::integer, $4::bigint"),
			q.queue, after, min(limit, claimMessages), int64(claimBytes))
		if err != nil {
			return err
		}
		out, err = q.deliveries(rows)
		return err
	})
	if err != nil || len(out) == 0 {
		return nil, "", err
	}
	return out, out[len(out)-1].BrokerID, nil
}

// Stats counts without looking at messages. What waits for its turn in a session
// counts as ready.
func (q *Queue) Stats(ctx context.Context) (st driver.Stats, err error) {
	if err := q.holder.Usable(ctx); err != nil {
		return driver.Stats{}, err
	}
	err = q.broker.request(ctx, func(ctx context.Context, c *conn) error {
		st = driver.Stats{}
		var age pgtype.Float8
		err := c.QueryRow(ctx, q.broker.call("queue_stats", "$1::bigint"), q.queue).
			Scan(&st.Ready, &st.Scheduled, &st.InFlight, &st.DeadLetters, &age, &st.Approximate)
		if age.Valid {
			st.Oldest = before(time.Now(), age.Float64)
		}
		return err
	})
	if q.queue < 0 {
		st.DeadLetters = 0
	}
	return st, err
}

// before returns the time that many seconds before now. What no clock can have written is
// cut: it was planted.
func before(now time.Time, seconds float64) time.Time {
	const century = 100 * 365 * 24 * 60 * 60
	return now.Add(-time.Duration(math.Max(-century, math.Min(seconds, century)) * float64(time.Second)))
}
