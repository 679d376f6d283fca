package fixturetest

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
)

// SessionCounter is a broker that counts the sessions of its driver.
type SessionCounter struct {
	driver.Broker
	// Caps changes what the queues say that they can do. Nil changes nothing.
	Caps     func(*driver.Capabilities)
	Accepted atomic.Int32 // so far
	Held     atomic.Int32 // accepted and not closed
}

// Open opens a queue whose sessions are counted.
func (c *SessionCounter) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := c.Broker.Open(ctx, name, o)
	return &countedQueue{q, c}, err
}

type countedQueue struct {
	driver.Queue
	c *SessionCounter
}

func (q *countedQueue) Capabilities() driver.Capabilities {
	c := q.Queue.Capabilities()
	if q.c.Caps != nil {
		q.c.Caps(&c)
	}
	return c
}

func (q *countedQueue) AcceptSession(ctx context.Context, id string, wait time.Duration) (driver.Session, error) {
	s, err := q.Queue.AcceptSession(ctx, id, wait)
	if err != nil {
		return nil, err
	}
	q.c.Accepted.Add(1)
	q.c.Held.Add(1)
	return &countedSession{Session: s, c: q.c}, nil
}

type countedSession struct {
	driver.Session
	c      *SessionCounter
	closed atomic.Bool
}

func (s *countedSession) Close(ctx context.Context) error {
	if !s.closed.Swap(true) {
		s.c.Held.Add(-1)
	}
	return s.Session.Close(ctx)
}

// CountSessions returns a receiver of Orders over a client whose sessions c counts.
func (x *Fixture) CountSessions(c *SessionCounter, o *queue.ReceiverOptions) *queue.Receiver {
	x.Helper()
	c.Broker = x.Broker
	client, err := queue.New(c, &queue.Options{
		Keys: x.Ring, ReplayStore: x.Store, Logger: Quiet(),
		Crypto: queue.CryptoConfig{Enabled: true, TrackReplays: true, MaxMessageAge: 2 * time.Hour},
	})
	x.Must(err)
	r, err := client.Receiver(x.Context(), Orders, o)
	x.Must(err)
	return r
}
