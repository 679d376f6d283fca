package postgresqueue

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/queue-runtime/queue/driver"
)

// SendTx stores messages in a transaction of the caller, in the database of the queue:
// they exist if and when it commits. The role of the transaction needs the right to
// send. After an error the caller must roll back: a part may be stored in the
// transaction.
//
// Messages of sessions lock their sessions until the transaction ends, so that other
// sends and settlements in them wait for it: send last, and commit. Receivers are
// notified by the commit, unless Options.Pooled is set.
func (q *Queue) SendTx(ctx context.Context, tx pgx.Tx, m []*driver.Message) error {
	b, err := q.batch(ctx, m, func(i int, err error) error { return fmt.Errorf("message %d: %w", i, err) })
	if err != nil || len(m) == 0 {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, q.broker.options.Timeout)
	defer cancel()
	stored, err := b.store(limited, tx, q.broker.options.Schema, q.queue)
	if err == nil && !q.broker.options.Pooled {
		_, err = tx.Exec(limited, `SELECT pg_catalog.pg_notify($1, $2)`, q.broker.channel(), strconv.FormatInt(q.queue, 10))
	}
	if errors.Is(err, pgx.ErrTxClosed) {
		return driver.Errorf(driver.Invalid, "the transaction has ended")
	}
	if err != nil {
		return classify(ctx, err)
	}
	for i, place := range stored {
		if place == 0 {
			return fmt.Errorf("message %d: %w", i, errFull)
		}
	}
	return nil
}
