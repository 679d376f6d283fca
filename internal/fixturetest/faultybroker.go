package fixturetest

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// FaultyBroker makes calls of its queues fail. The exported fields are set before a call
// that needs them; the methods may be called at any time.
type FaultyBroker struct {
	driver.Broker
	// OnSend answers a Send; nil, or a nil answer, passes the call on.
	OnSend func([]*driver.Message) []driver.SendResult
	// Caps changes what the queues say that they can do. Nil changes nothing.
	Caps func(*driver.Capabilities)
	// SettleFails is how many calls of Settle fail next as unavailable.
	SettleFails atomic.Int32

	mu      sync.Mutex // guards what follows
	settle  error
	receive error
}

// FailSettle makes every Settle fail; nil ends that.
func (b *FaultyBroker) FailSettle(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.settle = err
}

// FailReceive makes every Receive fail; nil ends that.
func (b *FaultyBroker) FailReceive(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.receive = err
}

// Open opens a queue whose calls fail as b says.
func (b *FaultyBroker) Open(ctx context.Context, queue string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := b.Broker.Open(ctx, queue, o)
	if err != nil {
		return nil, err
	}
	return &faultyQueue{Queue: q, b: b}, nil
}

type faultyQueue struct {
	driver.Queue
	b *FaultyBroker
}

func (q *faultyQueue) Capabilities() driver.Capabilities {
	c := q.Queue.Capabilities()
	if q.b.Caps != nil {
		q.b.Caps(&c)
	}
	return c
}

func (q *faultyQueue) Send(ctx context.Context, m []*driver.Message) []driver.SendResult {
	if q.b.OnSend != nil {
		if r := q.b.OnSend(m); r != nil {
			return r
		}
	}
	return q.Queue.Send(ctx, m)
}

func (q *faultyQueue) Receive(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
	q.b.mu.Lock()
	err := q.b.receive
	q.b.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return q.Queue.Receive(ctx, max, wait)
}

func (q *faultyQueue) Settle(ctx context.Context, s []driver.Settlement) []error {
	q.b.mu.Lock()
	err := q.b.settle
	q.b.mu.Unlock()
	if err == nil && q.b.SettleFails.Add(-1) >= 0 {
		err = driver.Errorf(driver.Unavailable, "connection reset")
	}
	if err != nil {
		return slices.Repeat([]error{err}, len(s))
	}
	s = slices.Clone(s)
	for i := range s {
		// As a driver does whose broker counts every delivery.
		if s[i].Kind == driver.Release && !q.Capabilities().ReleaseUncounted {
			s[i].Kind = driver.Abandon
		}
	}
	return q.Queue.Settle(ctx, s)
}
