package sqlitereplay

import (
	"context"
	"crypto/rand"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/replaystate"
	"github.com/queue-runtime/queue/sqlite/internal/sqlitefile"
)

// Group implements replaystate.Engine.
func (e *engine) Group(ctx context.Context, group string) (g replaystate.Group, err error) {
	_, err = e.read(ctx, group, func(l *call) { g = l.group.state })
	return g, err
}

// Change implements replaystate.Engine. It waits for the disk.
func (e *engine) Change(ctx context.Context, group string, do func(*replaystate.Group)) error {
	_, err := e.write(ctx, group, 1, synced, func(l *call) { do(&l.group.state) })
	return err
}

// History implements replaystate.Engine.
func (e *engine) History(ctx context.Context) (h replaystate.History, err error) {
	err = e.file.Snapshot(ctx, func(c *sqlitefile.Conn) (err error) {
		h, err = readHistory(c)
		return err
	})
	return h, unabort(err)
}

// Accept implements replaystate.Engine. It waits for the disk.
func (e *engine) Accept(ctx context.Context, lost replaystate.Stamp) (l replaystate.Loss, err error) {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails: it ends the process instead
	err = e.file.Write(ctx, func(c *sqlitefile.Conn) error {
		e.cache = cache{} // what this changes, it would not know
		h, err := readHistory(c)
		if err != nil {
			return err
		}
		var changed bool
		if l, changed = h.Accept(lost, id, e.now()); !changed {
			return nil
		}
		if _, err := c.Exec(updateStore, h.Stamp.ID[:], h.Stamp.Birth, replaystate.AppendLosses(nil, h.Losses)); err != nil {
			return err
		}
		_, err = c.Exec(count, storeCounter, int64(0), int64(0), int64(0), int64(0)) // raises the change number
		return err
	})
	return l, unabort(err)
}

func readHistory(c *sqlitefile.Conn) (h replaystate.History, err error) {
	if h.Stamp, _, err = readStore(c); err != nil {
		return h, err
	}
	_, err = c.One(selectLosses, func(r sqlitefile.Row) (err error) {
		if h.Losses, err = replaystate.DecodeLosses(r.Bytes(0)); err != nil {
			return driver.Errorf(driver.Corrupt, "the accepted losses: %w", err)
		}
		return nil
	})
	return h, err
}
