package sqlitequeue

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/queue-runtime/queue/sqlite/internal/sqlitefile"
)

const (
	// maintainEvery is how often a broker does the work that no call does: messages that
	// are due in queues without receivers, states of dead sessions, and free pages of
	// the file.
	maintainEvery = 30 * time.Second

	// Free pages are reused by later messages. They are given back to the
	// file system when they are more than freeSlack pages and more than those
	// in use, freeStep at a time, so that others get their turn in between.
	freeSlack = 4096
	freeStep  = 512

	// closeShrink is for how long Close does that: a program that runs for a
	// moment only would never come to it otherwise.
	closeShrink = time.Second
)

// maintain is the broker's goroutine for that. Errors are left to the calls that
// meet them, too.
func (b *Broker) maintain(ctx context.Context) {
	defer close(b.maintaining)
	for {
		t := time.NewTimer(maintainEvery/2 + rand.N(maintainEvery)) //nolint:gosec // G404: jitter, not a secret
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		for _, q := range b.queues.All() {
			_ = q.maintain(ctx)
		}
		_ = b.shrink(ctx)
	}
}

// maintain does what is due in a queue and in its dead-letter queue.
func (q *Queue) maintain(ctx context.Context) error {
	number := max(q.queue, -q.queue)
	dead := source{broker: q.broker, queue: -number, name: q.name, settings: q.settings}
	if err := dead.catchUp(ctx); err != nil { // and what it depends on
		return err
	}
	// In steps that do not wait for the disk: what a power cut brings back is
	// removed again.
	for more := true; more; {
		err := q.broker.file.WriteUnsynced(ctx, func(c *sqlitefile.Conn) error {
			now := time.Now()
			states, err := c.Exec(pruneStates, number, now.Add(-q.settings.Retention).UnixNano(), int64(sweepStep))
			if err != nil {
				return err
			}
			known, err := c.Exec(pruneDedup, now.UnixNano(), int64(sweepStep))
			more = max(states, known) == sweepStep
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// shrink gives free pages back to the file system.
func (b *Broker) shrink(ctx context.Context) error {
	for {
		used, free, err := b.file.Pages(ctx)
		if err != nil || free <= freeSlack || free <= used {
			return err
		}
		if err := b.file.Shrink(ctx, freeStep); err != nil {
			return err
		}
	}
}
