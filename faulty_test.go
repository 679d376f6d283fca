package queue_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/replay"
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
		s = slices.Clone(s)
		for i := range s {
			// As a driver does whose broker counts every delivery.
			if s[i].Kind == driver.Release && !q.Capabilities().ReleaseUncounted {
				s[i].Kind = driver.Abandon
			}
		}
		return q.Queue.Settle(ctx, s)
	}
	errs := make([]error, len(s))
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// faultyStore is a replay store that fails while an error is set.
type faultyStore struct {
	replay.Store
	mu  sync.Mutex
	err error
}

func (s *faultyStore) set(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *faultyStore) fails() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *faultyStore) Begin(ctx context.Context, group string, r []replay.Request) ([]replay.Claim, error) {
	switch err := s.fails(); {
	case errors.Is(err, replay.ErrFull):
		claims := make([]replay.Claim, len(r))
		for i := range claims {
			claims[i].Err = err
		}
		return claims, nil
	case err != nil:
		return nil, err
	}
	return s.Store.Begin(ctx, group, r)
}

func (s *faultyStore) Renew(ctx context.Context, group string, l []replay.Lease) ([]replay.Renewed, error) {
	if err := s.fails(); err != nil {
		return nil, err
	}
	return s.Store.Renew(ctx, group, l)
}

func (s *faultyStore) Finish(ctx context.Context, group string, f []replay.Finish) ([]replay.Finished, error) {
	if err := s.fails(); err != nil {
		return nil, err
	}
	return s.Store.Finish(ctx, group, f)
}

func (s *faultyStore) Look(ctx context.Context, group string, q []replay.Query) ([]replay.Look, error) {
	if err := s.fails(); err != nil {
		return nil, err
	}
	return s.Store.Look(ctx, group, q)
}

func (s *faultyStore) Probe(ctx context.Context, group string) error {
	if err := s.fails(); err != nil {
		return err
	}
	return s.Store.Probe(ctx, group)
}
