package worker_test

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
	// settleFails is how many calls of Settle fail next as unavailable.
	settleFails atomic.Int32
	receive     atomic.Pointer[error]
	caps        func(*driver.Capabilities)
}

func (p *faultyBroker) Open(ctx context.Context, queue string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := p.Broker.Open(ctx, queue, o)
	if err != nil {
		return nil, err
	}
	return &faultyQueue{Queue: q, p: p}, nil
}

// setReceive makes Receive fail; nil ends that.
func (p *faultyBroker) setReceive(err error) {
	if err == nil {
		p.receive.Store(nil)
		return
	}
	p.receive.Store(&err)
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

func (q *faultyQueue) Receive(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
	if err := q.p.receive.Load(); err != nil {
		return nil, *err
	}
	return q.Queue.Receive(ctx, max, wait)
}

func (q *faultyQueue) Settle(ctx context.Context, s []driver.Settlement) []error {
	if q.p.settleFails.Add(-1) < 0 {
		return q.Queue.Settle(ctx, s)
	}
	errs := make([]error, len(s))
	for i := range errs {
		errs[i] = driver.Errorf(driver.Unavailable, "connection reset")
	}
	return errs
}
