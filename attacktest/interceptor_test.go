package attacktest_test

import (
	"context"
	"fmt"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/drivertest"
	"github.com/queue-runtime/queue/memqueue"
)

// interceptor is a queue of memqueue. Each function that is set takes the place of
// the method of its name.
type interceptor struct {
	driver.Queue
	send    func(ctx context.Context, m []*driver.Message) []driver.SendResult
	receive func(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error)
	settle  func(ctx context.Context, s []driver.Settlement) []error
	accept  func(ctx context.Context, id string, wait time.Duration) (driver.Session, error)
}

func (i *interceptor) Send(ctx context.Context, m []*driver.Message) []driver.SendResult {
	if i.send != nil {
		return i.send(ctx, m)
	}
	return i.Queue.Send(ctx, m)
}

func (i *interceptor) Receive(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
	if i.receive != nil {
		return i.receive(ctx, max, wait)
	}
	return i.Queue.Receive(ctx, max, wait)
}

func (i *interceptor) Settle(ctx context.Context, s []driver.Settlement) []error {
	if i.settle != nil {
		return i.settle(ctx, s)
	}
	return i.Queue.Settle(ctx, s)
}

func (i *interceptor) AcceptSession(ctx context.Context, id string, wait time.Duration) (driver.Session, error) {
	if i.accept != nil {
		return i.accept(ctx, id, wait)
	}
	return i.Queue.AcceptSession(ctx, id, wait)
}

// receiveChanged is a Receive that applies change to each delivery.
func (i *interceptor) receiveChanged(change func(*driver.Delivery)) func(context.Context, int, time.Duration) ([]*driver.Delivery, error) {
	return func(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
		list, err := i.Queue.Receive(ctx, max, wait)
		for _, d := range list {
			change(d)
		}
		return list, err
	}
}

// settleChanged is a Settle that applies change to each settlement.
func (i *interceptor) settleChanged(change func(*driver.Settlement)) func(context.Context, []driver.Settlement) []error {
	return func(ctx context.Context, list []driver.Settlement) []error {
		for n := range list {
			change(&list[n])
		}
		return i.Queue.Settle(ctx, list)
	}
}

type interceptingBroker struct {
	driver.Broker
	fault func(*interceptor)
}

func (b *interceptingBroker) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := b.Broker.Open(ctx, name, o)
	if err != nil {
		return nil, err
	}
	i := &interceptor{Queue: q}
	b.fault(i)
	return i, nil
}

// harness is memqueue with a fault.
func harness(fault func(*interceptor)) drivertest.Harness {
	return drivertest.Harness{Start: func(t drivertest.T) *drivertest.Instance {
		b := memqueue.New(&memqueue.Options{DeclaredOnly: true})
		t.Cleanup(func() {
			if err := b.Close(context.Background()); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
		declared := 0
		return &drivertest.Instance{
			Attacker: b.Attacker(),
			Connect:  func(context.Context) (driver.Broker, error) { return &interceptingBroker{b.Connect(), fault}, nil },
			NewQueue: func(context.Context, drivertest.QueueSpec) (string, error) {
				declared++
				name := fmt.Sprintf("queue-%d", declared)
				return name, b.Declare(name, memqueue.QueueOptions{MaxBody: 64 << 10, MaxDeliveries: -1})
			},
		}
	}}
}
