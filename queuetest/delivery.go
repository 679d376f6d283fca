package queuetest

import (
	"context"
	"sync"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/memqueue"
)

// DeliveryOptions say how [NewDelivery] delivers a message. Nil is the zero value.
type DeliveryOptions struct {
	Queue string // its name; empty means "test"
	Count int    // Delivery.Count; 0 means 1, the first delivery
}

// Delivery is a message for the test of a handler, and what became of it. It is safe for
// concurrent use.
type Delivery struct {
	*queue.Delivery
	settled *outcomes
}

// Outcome is how a [Delivery] was settled.
type Outcome struct {
	// Disposition is empty while it is not settled.
	Disposition driver.Disposition
	Reason      queue.Reason  // of DeadLetter
	Delay       time.Duration // of Abandon and Release
}

// NewDelivery returns a message as a handler gets it: sealed, sent, received and opened, in
// a [Fixture] of its own. All its methods work, and Outcome says what the handler did:
//
//	d := queuetest.NewDelivery(t, &queue.Message{Body: []byte(`{"order":1}`)}, nil)
//	err := handle(t.Context(), d.Delivery)
//
// A message that cannot be sent fails the test. o may be nil.
func NewDelivery(t TB, m *queue.Message, o *DeliveryOptions) *Delivery {
	t.Helper()
	if o == nil {
		o = &DeliveryOptions{}
	}
	name := o.Queue
	if name == "" {
		name = "test"
	}
	f := New(t, &Options{Queues: &memqueue.Options{Default: memqueue.QueueOptions{Retention: 24 * time.Hour, MaxDeliveries: -1}}})
	settled := &outcomes{Broker: f.Broker.Broker, count: o.Count}
	f.Broker.Broker = settled
	ctx := context.Background()
	s, err := f.Sender(ctx, name, nil)
	if err != nil {
		t.Fatalf("queuetest: %v", err)
	}
	if _, err := s.Send(ctx, m); err != nil {
		t.Fatalf("queuetest: %v", err)
	}
	r, err := f.Receiver(ctx, name, &queue.ReceiverOptions{Wait: time.Second})
	if err != nil {
		t.Fatalf("queuetest: %v", err)
	}
	d, err := r.ReceiveOne(ctx)
	if err != nil {
		t.Fatalf("queuetest: %v", err)
	}
	return &Delivery{Delivery: d, settled: settled}
}

// Outcome returns how the message was settled.
func (d *Delivery) Outcome() Outcome {
	d.settled.mu.Lock()
	defer d.settled.mu.Unlock()
	return d.settled.last
}

// outcomes is a broker that remembers the last settlement, and sets the count of
// deliveries.
type outcomes struct {
	driver.Broker
	count int

	mu   sync.Mutex // guards last
	last Outcome
}

func (s *outcomes) Open(ctx context.Context, queue string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := s.Broker.Open(ctx, queue, o)
	if err != nil {
		return nil, err
	}
	return &settledQueue{q, s}, nil
}

type settledQueue struct {
	driver.Queue
	all *outcomes
}

func (q *settledQueue) Receive(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
	batch, err := q.Queue.Receive(ctx, max, wait)
	for _, d := range batch {
		d.Count += q.all.count
		if q.all.count > 0 {
			d.Count-- // this one is among them
		}
	}
	return batch, err
}

func (q *settledQueue) Settle(ctx context.Context, all []driver.Settlement) []error {
	errs := q.Queue.Settle(ctx, all)
	q.all.mu.Lock()
	defer q.all.mu.Unlock()
	for i, s := range all {
		if i < len(errs) && errs[i] == nil {
			q.all.last = Outcome{Disposition: s.Kind.Disposition(), Reason: queue.Reason{Code: s.Reason, Description: s.Description}, Delay: s.Delay}
		}
	}
	return errs
}
