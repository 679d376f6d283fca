package postgresqueue

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/queue-runtime/queue/driver"
)

// SendTx stores messages in a transaction of the caller, in the database of the queue:
// they exist if and when it commits. The role of the transaction needs the right to
// send. After an error the caller must roll back: a part may be stored in the
// transaction.
//
// The messages are those of a Prepared of package queue, so that they are sealed, and of
// this queue: a sealed message opens in no other.
//
// Messages of sessions lock their sessions until the transaction ends, so that other
// sends and settlements in them wait for it: send last, all messages in one call, and
// commit. Two transactions that send to the same sessions in several calls can wait for
// each other; the server then ends one of them, with driver.ErrUnavailable. Receivers are
// notified by the commit, unless Options.Pooled is set.
func (q *Queue) SendTx(ctx context.Context, tx pgx.Tx, m []*driver.Message) error {
	if tx == nil {
		return errNoTx
	}
	return q.sendIn(ctx, pgxTx{tx}, m)
}

// SendSQLTx is SendTx for a transaction of database/sql, of any driver for PostgreSQL
// that passes strings on as text. Bodies travel in hexadecimal, so that they take twice
// the room on the way to the server.
func (q *Queue) SendSQLTx(ctx context.Context, tx *sql.Tx, m []*driver.Message) error {
	if tx == nil {
		return errNoTx
	}
	return q.sendIn(ctx, sqlTx{tx}, m)
}

var errNoTx = driver.Errorf(driver.Invalid, "the transaction is nil")

// transaction is one of the caller.
type transaction interface {
	store(ctx context.Context, schema string, queue int64, b *batch) ([]int64, error)
	notify(ctx context.Context, channel, payload string) error
}

func (q *Queue) sendIn(ctx context.Context, tx transaction, m []*driver.Message) error {
	b, err := q.batch(ctx, m, func(i int, err error) error { return fmt.Errorf("message %d: %w", i, err) })
	if err != nil || len(m) == 0 {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, q.broker.options.Timeout)
	defer cancel()
	stored, err := tx.store(limited, q.broker.options.Schema, q.queue, b)
	if err == nil && !q.broker.options.Pooled {
		err = tx.notify(limited, q.broker.channel(), strconv.FormatInt(q.queue, 10))
	}
	if errors.Is(err, pgx.ErrTxClosed) || errors.Is(err, sql.ErrTxDone) {
		return driver.Errorf(driver.Invalid, "the transaction has ended")
	}
	if err != nil {
		return classify(ctx, serverError(err))
	}
	for i, place := range stored {
		if place == 0 {
			return fmt.Errorf("message %d: %w", i, errFull)
		}
	}
	return nil
}

const notify = `SELECT pg_catalog.pg_notify($1, $2)`

type pgxTx struct{ tx pgx.Tx }

func (t pgxTx) store(ctx context.Context, schema string, queue int64, b *batch) ([]int64, error) {
	return b.store(ctx, t.tx, schema, queue)
}

func (t pgxTx) notify(ctx context.Context, channel, payload string) error {
	_, err := t.tx.Exec(ctx, notify, channel, payload)
	return err
}

// sqlTx passes every argument as text, which each driver does alike.
type sqlTx struct{ tx *sql.Tx }

func (t sqlTx) store(ctx context.Context, schema string, queue int64, b *batch) ([]int64, error) {
	var places string
	err := t.tx.QueryRowContext(ctx, `SELECT `+schema+`.send(`+sendArguments+`)::text`, strconv.FormatInt(queue, 10),
		textArray(b.ids), textArray(b.sessions), textArray(b.correlations), textArray(b.types), bytesArray(b.attributes),
		bytesArray(b.traces), boolArray(b.sealed), timeArray(b.notBefore), numberArray(b.ttl), textArray(b.dedups),
		bytesArray(b.bodies)).Scan(&places)
	if err != nil {
		return nil, err
	}
	stored, err := parseNumbers(places)
	if err != nil || len(stored) != len(b.ids) {
		return nil, driver.Errorf(driver.Corrupt, "the server answered for %d of %d messages", len(stored), len(b.ids))
	}
	return stored, nil
}

func (t sqlTx) notify(ctx context.Context, channel, payload string) error {
	_, err := t.tx.ExecContext(ctx, notify, channel, payload)
	return err
}

// serverError makes an error of another driver's server a *pgconn.PgError, by the method
// that they have in common.
func serverError(err error) error {
	var p *pgconn.PgError
	var state interface{ SQLState() string }
	if !errors.As(err, &p) && errors.As(err, &state) {
		return &pgconn.PgError{Code: state.SQLState(), Message: "the server refused the request"}
	}
	return err
}
