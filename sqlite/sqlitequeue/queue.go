package sqlitequeue

import (
	"context"
	"errors"
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
		children   map[child]struct{} // sessions and dead-letter queues
	}
	owner interface{ disown(child) }
}

// child is what closes with the queue or broker that opened it.
type child interface{ Close(context.Context) error }

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

// DeadLetters opens the dead-letter queue. Sessions have no turns there.
func (q *Queue) DeadLetters(ctx context.Context) (driver.Queue, error) {
	if q.queue < 0 {
		return nil, driver.Unsupported("dead letters of a dead-letter queue")
	}
	if err := q.usable(ctx); err != nil {
		return nil, err
	}
	cfg := q.cfg
	cfg.MaxDeliveries = 0
	d := newQueue(q.broker, -q.queue, q.name, cfg, q)
	if !q.adopt(d) {
		return nil, &driver.Error{Kind: driver.Closed}
	}
	return d, nil
}

func newQueue(b *Broker, number int64, name string, cfg QueueOptions, owner interface{ disown(child) }) *Queue {
	q := &Queue{source: newSource(b, number, name, cfg), owner: owner}
	q.open.children = make(map[child]struct{})
	return q
}

// adopt makes c close with q; false when q is closed.
func (q *Queue) adopt(c child) bool {
	q.open.Lock()
	defer q.open.Unlock()
	if !q.open.closed {
		q.open.children[c] = struct{}{}
	}
	return !q.open.closed
}

func (q *Queue) disown(c child) {
	q.open.Lock()
	defer q.open.Unlock()
	delete(q.open.children, c)
}

// Close gives back what was received here and is not settled, and closes the
// queue's sessions.
func (q *Queue) Close(ctx context.Context) error {
	held, first := q.shut()
	if !first {
		return nil
	}
	q.owner.disown(q)
	q.open.Lock()
	q.open.closed = true
	children := make([]child, 0, len(q.open.children))
	for c := range q.open.children {
		children = append(children, c)
	}
	q.open.Unlock()
	var err error
	for _, c := range children {
		err = errors.Join(err, c.Close(ctx))
	}
	return errors.Join(err, q.giveBack(ctx, held, false))
}
