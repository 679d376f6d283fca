package postgresqueue

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/sqldriver"
)

// Queue is an open queue, or the dead letters of one.
type Queue struct {
	driver.Unimplemented
	source

	sessions sqldriver.OpenSet[*session]
}

var _ driver.Queue = (*Queue)(nil)

// Capabilities says what the queue can do.
func (q *Queue) Capabilities() driver.Capabilities {
	c := q.settings.capabilities()
	if q.queue < 0 {
		return sqldriver.DeadLetterCapabilities(c, q.settings.DeadLetterRetention)
	}
	return c
}

// Receive delivers messages, those of sessions included, at most one of a session that
// is not settled.
func (q *Queue) Receive(ctx context.Context, limit int, wait time.Duration) ([]*driver.Delivery, error) {
	if q.settings.SessionOnly && q.queue > 0 {
		return nil, driver.Unsupported("receiving outside of a session: the queue is for sessions only")
	}
	return q.receive(ctx, limit, wait)
}

// Settle settles deliveries in one transaction.
func (q *Queue) Settle(ctx context.Context, list []driver.Settlement) []error {
	return q.settle(ctx, list)
}

// Renew extends locks in one transaction.
func (q *Queue) Renew(ctx context.Context, list []*driver.Delivery) []driver.RenewResult {
	return q.renew(ctx, list)
}

// DeadLetters opens the dead-letter queue. Sessions have no turns there. It is open
// until it is closed itself, or the Broker is.
func (q *Queue) DeadLetters(ctx context.Context) (driver.Queue, error) {
	if q.queue < 0 {
		return nil, driver.Unsupported("dead letters of a dead-letter queue")
	}
	if err := q.holder.Usable(ctx); err != nil {
		return nil, err
	}
	settings := q.settings
	settings.MaxDeliveries = 0
	return q.broker.newQueue(-q.queue, q.name, settings)
}

// Close gives back what was received here and is not settled, and closes the queue's
// sessions.
func (q *Queue) Close(ctx context.Context) error {
	unsettled, first := q.holder.Shut()
	if !first {
		return nil
	}
	q.broker.queues.Remove(q)
	q.settler.close()
	var lost error
	var back sync.WaitGroup
	back.Go(func() { lost = q.giveBack(ctx, unsettled, driver.Abandon) })
	err := q.sessions.Close(ctx)
	back.Wait()
	return errors.Join(err, lost)
}
