package sqlitequeue

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// Queue is an open queue, or the dead letters of one.
type Queue struct {
	driver.Unimplemented
	source

	open struct {
		sync.Mutex // guards what follows
		closed     bool
		sessions   map[*session]struct{}
	}
}

var _ driver.Queue = (*Queue)(nil)

// Capabilities says what the queue can do.
func (q *Queue) Capabilities() driver.Capabilities {
	c := q.cfg.capabilities()
	if q.queue < 0 {
		c.Sessions, c.SessionState, c.AcceptByID, c.SessionOnly = driver.None, driver.None, false, false
		c.DeadLetter, c.Schedule, c.TTL, c.Dedup = driver.None, driver.None, driver.None, driver.None
		c.MaxDeliveries, c.Retention = 0, q.cfg.DeadLetterRetention
	}
	return c
}

// Receive delivers messages, those of sessions included, at most one of a
// session that is not settled.
func (q *Queue) Receive(ctx context.Context, limit int, wait time.Duration) ([]*driver.Delivery, error) {
	if q.cfg.SessionOnly && q.queue > 0 {
		return nil, driver.Unsupported("receiving outside of a session: the queue is for sessions only")
	}
	return q.receive(ctx, limit, wait)
}

// Settle settles deliveries in one transaction.
func (q *Queue) Settle(ctx context.Context, list []driver.Settlement) []error {
	return q.settle(ctx, list)
}

// Renew extends locks in one transaction.
func (q *Queue) Renew(ctx context.Context, list []*driver.Delivery) ([]time.Time, []error) {
	return q.renew(ctx, list)
}

// DeadLetters opens the dead-letter queue. Sessions have no turns there. It is
// open until it is closed itself, or the Broker is.
func (q *Queue) DeadLetters(ctx context.Context) (driver.Queue, error) {
	if q.queue < 0 {
		return nil, driver.Unsupported("dead letters of a dead-letter queue")
	}
	if err := q.usable(ctx); err != nil {
		return nil, err
	}
	cfg := q.cfg
	cfg.MaxDeliveries = 0
	return q.broker.newQueue(-q.queue, q.name, cfg)
}

// adopt makes s close with q; false when q is closed.
func (q *Queue) adopt(s *session) bool {
	q.open.Lock()
	defer q.open.Unlock()
	if !q.open.closed {
		q.open.sessions[s] = struct{}{}
	}
	return !q.open.closed
}

func (q *Queue) disown(s *session) {
	q.open.Lock()
	defer q.open.Unlock()
	delete(q.open.sessions, s)
}

// Close gives back what was received here and is not settled, and closes the
// queue's sessions.
func (q *Queue) Close(ctx context.Context) error {
	held, first := q.shut()
	if !first {
		return nil
	}
	q.broker.disown(q)
	q.open.Lock()
	q.open.closed = true
	sessions := slices.Collect(maps.Keys(q.open.sessions))
	q.open.Unlock()
	var lost error
	var back sync.WaitGroup
	back.Go(func() { lost = q.giveBack(ctx, held, false) })
	err := closeAll(ctx, sessions)
	back.Wait()
	return errors.Join(err, lost)
}
