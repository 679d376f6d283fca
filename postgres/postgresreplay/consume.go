package postgresreplay

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/replaystate"
	"github.com/queue-runtime/queue/postgres/internal/database"
	"github.com/queue-runtime/queue/replay"
)

// Claimer is what holds a claim in a replay store: a queue.Delivery.
type Claimer interface {
	// Claim returns the group and what ends the claim; ok is false if there is none.
	Claim() (group string, f replay.Finish, ok bool)
}

// ConsumeTx consumes the message of d in a transaction of the caller, in the database of
// the store: the message is handled if and when it commits, together with all else that
// the transaction wrote. So each message has its effect once, whatever crashes when.
//
//	err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
//		if err := store.ConsumeTx(ctx, tx, d); err != nil {
//			return err
//		}
//		_, err := tx.Exec(ctx, `INSERT INTO result ...`)
//		return err
//	})
//	if errors.Is(err, replay.ErrHandled) {
//		return nil // an earlier delivery has committed: complete the message
//	}
//
// Complete the delivery after the commit. If that fails, or the process ends before, the
// broker delivers the message again, and the receiver completes it without handing it
// out.
//
// Call it first: of two transactions that consume one message, because the lease of one
// was over, the second waits here until the first has ended. Then it fails with
// replay.ErrHandled, or goes on if the first was rolled back. If another receiver has
// taken the claim over, or it was ended, ConsumeTx fails with replay.ErrClaimLost. After
// any of these errors the transaction cannot commit: roll it back, and not to a savepoint.
//
// Any isolation level will do. The role of the transaction needs rights on three tables
// of the schema (docs/replay/postgres.md, Roles). The claim is looked up by a connection
// of the store, so that no snapshot of the transaction is believed.
func (s *Store) ConsumeTx(ctx context.Context, tx pgx.Tx, d Claimer) error {
	return s.consume(ctx, d, func(ctx context.Context, statement string, args ...any) (int64, error) {
		tag, err := tx.Exec(ctx, statement, args...)
		return tag.RowsAffected(), err
	})
}

// ConsumeSQLTx is ConsumeTx for a transaction of package database/sql, with pgx's driver
// or any other for PostgreSQL.
func (s *Store) ConsumeSQLTx(ctx context.Context, tx *sql.Tx, d Claimer) error {
	return s.consume(ctx, d, func(ctx context.Context, statement string, args ...any) (int64, error) {
		r, err := tx.ExecContext(ctx, statement, args...)
		if err != nil {
			return 0, err
		}
		return r.RowsAffected()
	})
}

// execute runs a statement in a transaction, and returns how many rows it changed.
type execute func(ctx context.Context, statement string, args ...any) (int64, error)

func (s *Store) consume(ctx context.Context, d Claimer, exec execute) error {
	e := s.engine
	group, f, ok := d.Claim()
	if !ok {
		return driver.Errorf(driver.Invalid, "postgresreplay: the delivery has no claim: set CryptoConfig.TrackReplays and this store as Options.ReplayStore")
	}
	end := &replaystate.Finish{
		Key: replaystate.Key{Sender: f.ID.Sender, Stream: f.ID.Stream}, Sequence: f.ID.Sequence, Token: f.Token, Kind: replaystate.Consume,
	}
	uid, err := e.uid(ctx)
	if err != nil {
		return fmt.Errorf("postgresreplay: consume: %w", err)
	}
	// The row stands before the claim is looked up: what is consumed before the row
	// stands is seen there, and what comes later waits for this transaction.
	n, err := exec(ctx, e.sql(insertCompletion), []byte(group), []byte(end.Key.Sender), end.Key.Stream[:], int64(end.Sequence), end.Token[:], uid) //nolint:gosec // G115: below 2^53
	switch {
	case err != nil:
		return fmt.Errorf("postgresreplay: consume: %w", consumeError(ctx, err))
	case n == 0:
		err = driver.Errorf(driver.Invalid, "the transaction is not in the database of this replay store, or the message was not claimed in it")
	default:
		err = e.check(ctx, group, end)
	}
	if err != nil {
		_, _ = exec(ctx, fail) // it is meant to fail; the transaction has no other use
		return fmt.Errorf("postgresreplay: consume: %w", err)
	}
	return nil
}

// check says whether a claim is held.
func (e *engine) check(ctx context.Context, group string, f *replaystate.Finish) error {
	out, err := e.held(ctx, group, f)
	switch {
	case err != nil:
		return err
	case out == replaystate.Done:
		return nil
	case out == replaystate.Handled:
		return replay.ErrHandled
	}
	return replay.ErrClaimLost
}

// sqlStater is the error of a driver of database/sql.
type sqlStater interface{ SQLState() string }

// consumeError sorts the error of insertCompletion.
func consumeError(ctx context.Context, err error) error {
	const uniqueViolation = "23505"
	var p *pgconn.PgError
	var other sqlStater
	switch {
	case errors.Is(err, pgx.ErrTxClosed), errors.Is(err, sql.ErrTxDone):
		return driver.Errorf(driver.Invalid, "the transaction has ended")
	case errors.As(err, &p) && p.Code == uniqueViolation, errors.As(err, &other) && other.SQLState() == uniqueViolation:
		return replay.ErrHandled // the primary key has no other reason
	}
	return database.Classify(ctx, err)
}

// uid returns the ID of the store as it was in its last answer.
func (e *engine) uid(ctx context.Context) ([]byte, error) {
	if id := e.id.Load(); id != nil {
		return id[:], nil
	}
	stats, err := e.Stats(ctx)
	return stats.Stamp.ID[:], err
}
