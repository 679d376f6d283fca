package deadletter_test

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/queue-runtime/queue/driver"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// faultyBroker makes calls of its queues fail where an error is set.
type faultyBroker struct {
	driver.Broker
	settle error
	// settleFails is how many calls of Settle fail next as unavailable.
	settleFails atomic.Int32
	receive     error
	send        func([]*driver.Message) []driver.SendResult
	caps        func(*driver.Capabilities)
}

func (p *faultyBroker) Open(ctx context.Context, queue string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := p.Broker.Open(ctx, queue, o)
	if err != nil {
		return nil, err
	}
	return &faultyQueue{Queue: q, p: p}, nil
}

type faultyQueue struct {
	driver.Queue
	p *faultyBroker
}

func (q *faultyQueue) Capabilities() driver.Capabilities {
	c := q.Queue.Capabilities()
	if q.p.caps != nil {
		q.p.caps(&c)
	}
	return c
}

func (q *faultyQueue) Send(ctx context.Context, m []*driver.Message) []driver.SendResult {
	if q.p.send != nil {
		if r := q.p.send(m); r != nil {
			return r
		}
	}
	return q.Queue.Send(ctx, m)
}

func (q *faultyQueue) Receive(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
	if q.p.receive != nil {
		return nil, q.p.receive
	}
	return q.Queue.Receive(ctx, max, wait)
}

func (q *faultyQueue) Settle(ctx context.Context, s []driver.Settlement) []error {
	err := q.p.settle
	if err == nil && q.p.settleFails.Add(-1) >= 0 {
		err = driver.Errorf(driver.Unavailable, "connection reset")
	}
	if err == nil {
		return q.Queue.Settle(ctx, s)
	}
	errs := make([]error, len(s))
	for i := range errs {
		errs[i] = err
	}
	return errs
}
