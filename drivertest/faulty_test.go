package drivertest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/drivertest"
	"github.com/queue-runtime/queue/memqueue"
)

// faulty is a driver that does one thing wrong: each function that is set takes
// the place of the one of the sound queue below.
type faulty struct {
	driver.Queue
	world *world

	caps    func(driver.Capabilities) driver.Capabilities
	send    func(ctx context.Context, m []*driver.Message) []driver.SendResult
	receive func(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error)
	settle  func(ctx context.Context, s []driver.Settlement) []error
	renew   func(ctx context.Context, d []*driver.Delivery) []driver.RenewResult
	peek    func(ctx context.Context, cursor string, max int) ([]*driver.Delivery, string, error)
	accept  func(ctx context.Context, id string, wait time.Duration) (driver.Session, error)
	close   func(ctx context.Context) error
	dead    func(driver.Queue) driver.Queue
}

// world is what the faulty queues of one broker share.
type world struct {
	mu       sync.Mutex
	held     map[string]holding // by message ID
	sessions map[string]driver.Session
	bodies   map[string]bool
}

type holding struct {
	q driver.Queue
	d *driver.Delivery
}

func (f *faulty) Capabilities() driver.Capabilities {
	c := f.Queue.Capabilities()
	if f.caps != nil {
		return f.caps(c)
	}
	return c
}

func (f *faulty) Send(ctx context.Context, m []*driver.Message) []driver.SendResult {
	if f.send != nil {
		return f.send(ctx, m)
	}
	return f.Queue.Send(ctx, m)
}

func (f *faulty) Receive(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
	if f.receive != nil {
		return f.receive(ctx, max, wait)
	}
	return f.Queue.Receive(ctx, max, wait)
}

func (f *faulty) Settle(ctx context.Context, s []driver.Settlement) []error {
	if f.settle != nil {
		return f.settle(ctx, s)
	}
	return f.Queue.Settle(ctx, s)
}

func (f *faulty) Renew(ctx context.Context, d []*driver.Delivery) []driver.RenewResult {
	if f.renew != nil {
		return f.renew(ctx, d)
	}
	return f.Queue.Renew(ctx, d)
}

func (f *faulty) Peek(ctx context.Context, cursor string, max int) ([]*driver.Delivery, string, error) {
	if f.peek != nil {
		return f.peek(ctx, cursor, max)
	}
	return f.Queue.Peek(ctx, cursor, max)
}

func (f *faulty) AcceptSession(ctx context.Context, id string, wait time.Duration) (driver.Session, error) {
	if f.accept != nil {
		return f.accept(ctx, id, wait)
	}
	return f.Queue.AcceptSession(ctx, id, wait)
}

func (f *faulty) DeadLetters(ctx context.Context) (driver.Queue, error) {
	q, err := f.Queue.DeadLetters(ctx)
	if err == nil && f.dead != nil {
		q = f.dead(q)
	}
	return q, err
}

func (f *faulty) Close(ctx context.Context) error {
	if f.close != nil {
		return f.close(ctx)
	}
	return f.Queue.Close(ctx)
}

// sendChanged sends what change makes of a copy of each message.
func (f *faulty) sendChanged(ctx context.Context, m []*driver.Message, change func(*driver.Message)) []driver.SendResult {
	out := make([]*driver.Message, len(m))
	for i := range m {
		c := *m[i]
		c.Attributes = maps.Clone(c.Attributes)
		c.Body = bytes.Clone(c.Body)
		change(&c)
		out[i] = &c
	}
	return f.Queue.Send(ctx, out)
}

// receiveChanged receives and changes.
func (f *faulty) receiveChanged(change func(*driver.Delivery)) func(context.Context, int, time.Duration) ([]*driver.Delivery, error) {
	return func(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
		d, err := f.Queue.Receive(ctx, max, wait)
		for _, d := range d {
			change(d)
		}
		return d, err
	}
}

// pilferer is a session that receives from the whole queue and drops what is not
// its own.
type pilferer struct {
	driver.StatefulSession
	f  *faulty
	id string
}

func (p *pilferer) Receive(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
	if d, err := p.f.Queue.Receive(ctx, 1, 0); err == nil && len(d) > 0 && d[0].SessionID != p.id {
		p.f.Queue.Settle(ctx, []driver.Settlement{{Delivery: d[0], Kind: driver.Complete}})
	}
	return p.StatefulSession.Receive(ctx, max, wait)
}

// named returns what change makes of a session of memqueue that has a name, and any other
// as it is.
func named(s driver.Session, change func(driver.StatefulSession) driver.Session) driver.Session {
	if st, ok := s.(driver.StatefulSession); ok {
		return change(st)
	}
	return s
}

// hasty is a session that gives a message back behind the others.
type hasty struct {
	driver.StatefulSession
	f    *faulty
	kind driver.SettleKind // by which it gives back
}

func (h *hasty) Settle(ctx context.Context, s []driver.Settlement) []error {
	for i := range s {
		if s[i].Kind == h.kind {
			h.f.Queue.Send(ctx, []*driver.Message{&s[i].Delivery.Message})
			s[i].Kind = driver.Complete
		}
	}
	return h.StatefulSession.Settle(ctx, s)
}

type faultyBroker struct {
	driver.Broker
	world *world
	make  func(*faulty)
}

func (p *faultyBroker) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := p.Broker.Open(ctx, name, o)
	if err != nil {
		return nil, err
	}
	f := &faulty{Queue: q, world: p.world}
	p.make(f)
	return f, nil
}

// faultyHarness is memqueue with a fault.
func faultyHarness(fault func(*faulty)) drivertest.Harness {
	return drivertest.Harness{Start: func(t drivertest.T) *drivertest.Instance {
		b := memqueue.New(&memqueue.Options{DeclaredOnly: true})
		t.Cleanup(func() {
			if err := b.Close(context.Background()); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
		made := 0
		w := &world{held: make(map[string]holding), sessions: make(map[string]driver.Session), bodies: make(map[string]bool)}
		return &drivertest.Instance{
			Attacker: b.Attacker(),
			Connect:  func(context.Context) (driver.Broker, error) { return &faultyBroker{b.Connect(), w, fault}, nil },
			NewQueue: func(_ context.Context, s drivertest.QueueSpec) (string, error) {
				o := memqueue.QueueOptions{MaxBody: 64 << 10}
				if o.MaxDeliveries = s.MaxDeliveries; o.MaxDeliveries == 0 {
					o.MaxDeliveries = -1
				}
				if s.ShortLock {
					o.Lock = time.Second
				}
				if s.Dedup {
					o.DedupWindow = time.Minute
				}
				made++
				name := fmt.Sprintf("queue-%d", made)
				return name, b.Declare(name, o)
			},
		}
	}}
}

// byStaleReceipt is the fault of a driver that settles by kind what another receiver
// holds, through a receipt whose lock is over.
func byStaleReceipt(kind driver.SettleKind) func(*faulty) {
	return func(f *faulty) {
		f.receive = func(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
			all, err := f.Queue.Receive(ctx, max, wait)
			f.world.mu.Lock()
			defer f.world.mu.Unlock()
			for _, d := range all {
				f.world.held[d.ID] = holding{f.Queue, d}
			}
			return all, err
		}
		f.settle = func(ctx context.Context, s []driver.Settlement) []error {
			errs := f.Queue.Settle(ctx, s)
			for i := range errs {
				if errors.Is(errs[i], driver.ErrLockLost) && s[i].Kind == kind {
					f.world.mu.Lock()
					h := f.world.held[s[i].Delivery.ID]
					f.world.mu.Unlock()
					h.q.Settle(ctx, []driver.Settlement{{Delivery: h.d, Kind: kind}})
				}
			}
			return errs
		}
	}
}
