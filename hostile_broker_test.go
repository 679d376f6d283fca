package queue_test

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
)

// hostileBroker is a broker in the hands of the attacker: an honest one below, whose
// answers it changes.
type hostileBroker struct {
	driver.Broker
	caps    func(*driver.Capabilities)
	deliver func([]*driver.Delivery)  // changes what is delivered
	session func(string) string       // names a session anew
	state   []byte                    // of a session that has none
	counts  bool                      // a message that is given back has spent a delivery
	settled map[driver.SettleKind]int // how often, by kind
	fetched int                       // messages that were handed out
}

func (h *hostileBroker) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := h.Broker.Open(ctx, name, o)
	if err != nil {
		return nil, err
	}
	return &hostileQueue{Queue: q, hostileSource: hostileSource{q, h}}, nil
}

// hostileSource is what queues and sessions have in common.
type hostileSource struct {
	driver.Source
	h *hostileBroker
}

func (s *hostileSource) Receive(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
	d, err := s.Source.Receive(ctx, max, wait)
	s.h.fetched += len(d)
	if s.h.deliver != nil {
		s.h.deliver(d)
	}
	return d, err
}

func (s *hostileSource) Settle(ctx context.Context, all []driver.Settlement) []error {
	all = slices.Clone(all)
	for i := range all {
		if s.h.settled == nil {
			s.h.settled = make(map[driver.SettleKind]int)
		}
		s.h.settled[all[i].Kind]++
		if s.h.counts && all[i].Kind == driver.Release {
			all[i].Kind = driver.Abandon
		}
	}
	return s.Source.Settle(ctx, all)
}

type hostileQueue struct {
	driver.Queue
	hostileSource
}

func (q *hostileQueue) Receive(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
	return q.hostileSource.Receive(ctx, max, wait)
}

func (q *hostileQueue) Settle(ctx context.Context, all []driver.Settlement) []error {
	return q.hostileSource.Settle(ctx, all)
}

func (q *hostileQueue) Renew(ctx context.Context, d []*driver.Delivery) []driver.RenewResult {
	return q.Queue.Renew(ctx, d)
}

func (q *hostileQueue) Capabilities() driver.Capabilities {
	c := q.Queue.Capabilities()
	if q.h.counts {
		c.ReleaseUncounted = false
	}
	if q.h.caps != nil {
		q.h.caps(&c)
	}
	return c
}

func (q *hostileQueue) AcceptSession(ctx context.Context, id string, wait time.Duration) (driver.Session, error) {
	s, err := q.Queue.AcceptSession(ctx, id, wait)
	if err != nil {
		return nil, err
	}
	return &hostileSession{Session: s, hostileSource: hostileSource{s, q.h}}, nil
}

type hostileSession struct {
	driver.Session
	hostileSource
}

func (s *hostileSession) Unnamed() bool {
	u, ok := s.Session.(driver.UnnamedSession)
	return ok && u.Unnamed()
}

func (s *hostileSession) ID() string {
	if s.h.session == nil {
		return s.Session.ID()
	}
	return s.h.session(s.Session.ID())
}

func (s *hostileSession) Receive(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
	return s.hostileSource.Receive(ctx, max, wait)
}

func (s *hostileSession) Settle(ctx context.Context, all []driver.Settlement) []error {
	return s.hostileSource.Settle(ctx, all)
}

func (s *hostileSession) Renew(ctx context.Context, d []*driver.Delivery) []driver.RenewResult {
	return s.Session.Renew(ctx, d)
}

func (s *hostileSession) State(ctx context.Context) ([]byte, error) {
	if stateful, ok := s.Session.(driver.StatefulSession); ok {
		return stateful.State(ctx)
	}
	return s.h.state, nil
}

func (s *hostileSession) SetState(ctx context.Context, b []byte) error {
	if stateful, ok := s.Session.(driver.StatefulSession); ok {
		return stateful.SetState(ctx, b)
	}
	return nil
}

// copyMessage is a copy whose body and attributes the attacker may change.
func copyMessage(m driver.Message) driver.Message {
	m.Body = slices.Clone(m.Body)
	m.Attributes = maps.Clone(m.Attributes)
	return m
}

// copies are n copies of a message.
func copies(m driver.Message, n int) []driver.Message {
	all := make([]driver.Message, n)
	for i := range all {
		all[i] = copyMessage(m)
	}
	return all
}

// hostile returns a client of its own over h and the fixture's broker, as after a restart:
// it knows no key. It has the fixture's keys and store, and accepts messages for age.
func (x *fixture) hostile(h *hostileBroker, age time.Duration, change func(*queue.Options)) *queue.Client {
	x.Helper()
	h.Broker = x.Broker.Connect()
	o := &queue.Options{
		Keys: x.Ring, ReplayStore: x.Store, Logger: x.Logger,
		Crypto: queue.CryptoConfig{Enabled: true, PlaintextPolicy: queue.Reject, TrackReplays: true, MaxMessageAge: age},
		OnRejected: func(_ context.Context, e *queue.RejectedError) {
			x.Rejected = append(x.Rejected, e)
		},
	}
	if change != nil {
		change(o)
	}
	c, err := queue.New(h, o)
	x.Must(err)
	x.Cleanup(func() { x.Must(c.Close(context.Background())) })
	return c
}

// receiverOf opens a receiver of the orders.
func (x *fixture) receiverOf(c *queue.Client, o *queue.ReceiverOptions) *queue.Receiver {
	x.Helper()
	if o == nil {
		o = &queue.ReceiverOptions{Wait: time.Second}
	}
	r, err := c.Receiver(x.Context(), orders, o)
	x.Must(err)
	return r
}
