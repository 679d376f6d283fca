package sqlitequeue

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/sqldriver"
	"github.com/queue-runtime/queue/sqlite/internal/sqlitefile"
)

// source is what messages are received from: an open queue, an open dead-letter queue,
// or a session.
type source struct {
	broker   *Broker
	queue    int64 // negative: the dead letters of the queue of that number
	name     string
	settings QueueOptions // the queue's, with what this holder asked for
	hold     *hold        // of a session, nil otherwise
	holder   sqldriver.Holder

	// flowing is set while the last claim brought something: then the next one is made
	// without looking first.
	flowing atomic.Bool
}

func newSource(b *Broker, queue int64, name string, settings QueueOptions) source {
	return source{broker: b, queue: queue, name: name, settings: settings, holder: sqldriver.NewHolder(queue)}
}

// giveBack settles deliveries of which no caller will hear again: as Abandon if one
// has seen them, as Release, which does not count, otherwise.
func (s *source) giveBack(ctx context.Context, all []*sqldriver.Receipt, kind driver.SettleKind) error {
	if len(all) == 0 {
		return nil
	}
	err := sqldriver.GiveBack(ctx, errHeld, func(ctx context.Context) error {
		return s.broker.file.WriteUnsynced(ctx, func(c *sqlitefile.Conn) error { return s.releaseAll(c, all, kind) })
	})
	s.broker.arrivals.Notify(s.queue, -s.queue)
	return err
}

// errHeld is of what could not be given back in time.
var errHeld error = driver.Errorf(driver.Unavailable, "another process held the lock on the file for too long")

// releaseAll makes deliveries ready again that are still held.
func (s *source) releaseAll(c *sqlitefile.Conn, all []*sqldriver.Receipt, kind driver.SettleKind) error {
	now := time.Now().UnixNano()
	for _, r := range all {
		m, found, err := findLocked(c, s, r, now)
		if err != nil {
			return err
		}
		if !found {
			continue
		}
		if kind == driver.Release {
			if err := s.uncount(c, &m); err != nil {
				return err
			}
		}
		if err := s.release(c, m, 0, now); err != nil {
			return err
		}
	}
	return nil
}

// uncount takes back that m's present delivery was counted. It is called only for a
// delivery that is given back on purpose: one whose lock runs out stays counted, so
// that a message which ends its process reaches the limit of deliveries.
func (s *source) uncount(c *sqlitefile.Conn, m *row) error {
	m.deliveries--
	_, err := c.Exec(uncountDelivery, s.queue, m.seq)
	return err
}

const uncountDelivery = `UPDATE messages SET deliveries = deliveries - 1 WHERE queue = ?1 AND seq = ?2`
