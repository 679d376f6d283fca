package postgresreplay

import (
	"context"
	"crypto/rand"

	"github.com/jackc/pgx/v5"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/replaystate"
)

// Group implements replaystate.Engine.
func (e *engine) Group(ctx context.Context, group string) (g replaystate.Group, err error) {
	_, err = e.read(ctx, group, want{}, func(l *call) { g = l.group.state })
	return g, err
}

// Change implements replaystate.Engine.
func (e *engine) Change(ctx context.Context, group string, do func(*replaystate.Group)) error {
	_, err := e.write(ctx, group, want{}, func(l *call) { do(&l.group.state) })
	return err
}

// History implements replaystate.Engine.
func (e *engine) History(ctx context.Context) (h replaystate.History, err error) {
	err = e.connected(ctx, func(ctx context.Context, c *conn) error {
		h, _, err = e.readHistory(ctx, c)
		return err
	})
	return h, err
}

// Accept implements replaystate.Engine. The role must own the schema.
func (e *engine) Accept(ctx context.Context, lost replaystate.Stamp) (l replaystate.Loss, err error) {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails: it ends the process instead
	err = e.connected(ctx, func(ctx context.Context, c *conn) error {
		// Each statement sees what was committed before it: the lock comes first.
		options := pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadWrite}
		return pgx.BeginTxFunc(ctx, c, options, func(tx pgx.Tx) error {
			for _, statement := range []string{settings, e.sql(lockStore)} {
				if _, err := tx.Exec(ctx, statement); err != nil {
					return err
				}
			}
			h, now, err := e.readHistory(ctx, tx)
			if err != nil {
				return err
			}
			before := h.Stamp.ID
			var changed bool
			if l, changed = h.Accept(lost, id, e.clock(now)); !changed {
				return nil
			}
			_, err = tx.Exec(ctx, e.sql(insertLoss), before[:], h.Stamp.ID[:], h.Stamp.Birth)
			if err == nil {
				_, err = tx.Exec(ctx, e.sql(updateLosses), replaystate.AppendLosses(nil, h.Losses))
			}
			return err
		})
	})
	return l, err
}

// readHistory also returns the server's clock.
func (e *engine) readHistory(ctx context.Context, c interface {
	QueryRow(ctx context.Context, statement string, args ...any) pgx.Row
}) (h replaystate.History, now int64, err error) {
	var id, losses []byte
	var change int64
	if err := c.QueryRow(ctx, e.sql(selectHistory)).Scan(&id, &h.Stamp.Birth, &losses, &now, &change); err != nil {
		return h, 0, err
	}
	copy(h.Stamp.ID[:], id)
	h.Stamp.Change = uint64(change) //nolint:gosec // G115: counts up from 0
	if h.Losses, err = replaystate.DecodeLosses(losses); err != nil {
		return h, 0, driver.Errorf(driver.Corrupt, "%w", err)
	}
	return h, now, nil
}
