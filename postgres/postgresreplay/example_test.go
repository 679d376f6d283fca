package postgresreplay_test

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/queue-runtime/queue/postgres/postgresreplay"
	"github.com/queue-runtime/queue/replay"
)

// Payment is what a message asks for.
type Payment struct {
	ID     string
	Amount int64
}

// A handler writes its result and completes its message in one transaction.
func ExampleStore_ConsumeTx() {
	var db *pgxpool.Pool            // of the application
	var store *postgresreplay.Store // in the same database; also queue.Options.ReplayStore
	handle := func(ctx context.Context, p Payment, delivery postgresreplay.Claimer) error {
		err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
			if err := store.ConsumeTx(ctx, tx, delivery); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, `INSERT INTO payment (id, amount) VALUES ($1, $2)`, p.ID, p.Amount)
			return err
		})
		if errors.Is(err, replay.ErrHandled) {
			return nil // an earlier delivery has committed: the message is completed
		}
		return err
	}
	_ = handle // worker.JSON makes a handler of it; *queue.Delivery is a Claimer
}
