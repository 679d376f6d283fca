package book

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/queue-runtime/queue/postgres/postgresreplay"
	"github.com/queue-runtime/queue/replay"
)

// Payment is the body of a message, as JSON.
type Payment struct {
	ID      string
	Account string
	Cents   int64
}

// Book posts payments. It is safe for concurrent use.
type Book struct {
	db    *pgxpool.Pool
	store *postgresreplay.Store
}

const tables = `
CREATE TABLE IF NOT EXISTS account (name text PRIMARY KEY, cents bigint NOT NULL);
CREATE TABLE IF NOT EXISTS posting (payment text NOT NULL, account text NOT NULL, cents bigint NOT NULL)`

// tablesLock is any number: processes that start together make the tables one after the
// other.
const tablesLock = 1

// Open makes the tables if they are not there. The store lies in the same database.
func Open(ctx context.Context, db *pgxpool.Pool, store *postgresreplay.Store) (*Book, error) {
	err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, tablesLock); err != nil {
			return err
		}
		_, err := tx.Conn().PgConn().Exec(ctx, tables).ReadAll()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("tables of the ledger: %w", err)
	}
	return &Book{db, store}, nil
}

// Post posts a payment and consumes its message, both or neither. It returns nil also if an
// earlier delivery has done so.
func (b *Book) Post(ctx context.Context, d postgresreplay.Claimer, p *Payment) error {
	err := pgx.BeginFunc(ctx, b.db, func(tx pgx.Tx) error {
		if err := b.store.ConsumeTx(ctx, tx, d); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `INSERT INTO posting VALUES ($1, $2, $3)`, p.ID, p.Account, p.Cents); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `INSERT INTO account VALUES ($1, $2)
			ON CONFLICT (name) DO UPDATE SET cents = account.cents + EXCLUDED.cents`, p.Account, p.Cents)
		return err
	})
	if errors.Is(err, replay.ErrHandled) {
		return nil
	}
	return err
}
