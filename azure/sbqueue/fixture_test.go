package sbqueue_test

import (
	"bytes"
	"context"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/queue-runtime/queue/azure/sbqueue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/testbed/sbemulator"
)

// namespace is an emulator with one queue, "q".
type namespace struct {
	*sbemulator.Server
	settings sbqueue.QueueOptions
	memory   *memoryListener // nil: it listens on a port
}

func start(t testing.TB, so *sbemulator.Options, qo sbemulator.QueueOptions) *namespace {
	t.Helper()
	if so == nil {
		so = new(sbemulator.Options)
	}
	s, err := sbemulator.Start(so)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("emulator: %v", err)
		}
	})
	if err := s.CreateQueue("q", &qo); err != nil {
		t.Fatal(err)
	}
	memory, _ := so.Listener.(*memoryListener)
	return &namespace{s, sbqueue.QueueOptions{Sessions: qo.RequiresSession, Lock: qo.LockDuration, MaxDeliveries: qo.MaxDeliveryCount}, memory}
}

// dial connects to the emulator.
func (n *namespace) dial() (net.Conn, error) {
	if n.memory != nil {
		return n.memory.dial(context.Background())
	}
	return net.Dial("tcp", n.Addr().String())
}

func (n *namespace) broker(t testing.TB) *sbqueue.Broker {
	t.Helper()
	connect := sbqueue.FromConnectionString
	if n.memory != nil {
		connect = n.memory.connect
	}
	b, err := connect(n.ConnectionString(), &sbqueue.Options{Default: n.settings})
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, b)
	return b
}

// closeAtEnd closes b when the test ends.
func closeAtEnd(t testing.TB, b *sbqueue.Broker) {
	t.Cleanup(func() {
		if err := b.Close(context.Background()); err != nil {
			t.Errorf("Broker.Close: %v", err)
		}
	})
}

func (n *namespace) open(t testing.TB) driver.Queue {
	t.Helper()
	q, err := n.broker(t).Open(t.Context(), "q", nil)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// inject puts a fault in place until the test ends.
func (n *namespace) inject(t *testing.T, f sbemulator.Fault) *sbemulator.Injection {
	t.Helper()
	i, err := n.Inject(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(i.Remove)
	return i
}

func send(t testing.TB, q driver.Queue, all ...*driver.Message) {
	t.Helper()
	for _, r := range q.Send(t.Context(), all) {
		if r.Err != nil {
			t.Fatalf("Send: %v", r.Err)
		}
	}
}

// receive returns n deliveries of s.
func receive(t testing.TB, s driver.Source, n int) []*driver.Delivery {
	t.Helper()
	var out []*driver.Delivery
	for len(out) < n {
		d, err := s.Receive(t.Context(), n-len(out), time.Minute)
		if err != nil {
			t.Fatalf("Receive: %v", err)
		}
		if len(d) == 0 {
			t.Fatalf("%d of %d messages came", len(out), n)
		}
		out = append(out, d...)
	}
	return out
}

// settle settles d and returns the error and how long it took.
func settle(t testing.TB, s driver.Source, d *driver.Delivery, kind driver.SettleKind) (took time.Duration, err error) {
	t.Helper()
	begin := time.Now()
	err = s.Settle(t.Context(), []driver.Settlement{{Delivery: d, Kind: kind, Reason: "test"}})[0]
	return time.Since(begin), err
}

func accept(t testing.TB, q driver.Queue, id string) driver.Session {
	t.Helper()
	s, err := q.AcceptSession(t.Context(), id, time.Minute)
	if err != nil {
		t.Fatalf("AcceptSession: %v", err)
	}
	return s
}

// eventually waits until ok, for at most limit, and reports whether it was.
func eventually(limit time.Duration, ok func() bool) bool {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(limit); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// goroutinesOf returns the stacks of those of this driver and the SDK below it.
func goroutinesOf() []string {
	buf := make([]byte, 4<<20)
	buf = buf[:runtime.Stack(buf, true)]
	var out []string
	for stack := range bytes.SplitSeq(buf, []byte("\n\n")) {
		s := string(stack)
		if strings.Contains(s, "/sbemulator.") {
			continue
		}
		if strings.Contains(s, "/azure/sbqueue.") || strings.Contains(s, "/azservicebus") || strings.Contains(s, "/go-amqp") {
			out = append(out, s)
		}
	}
	return out
}

// timed is a provider that measures how long settling takes.
type timed struct {
	driver.Broker
	most  *atomic.Int64 // nanoseconds
	calls *atomic.Int64
}

func (p timed) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := p.Broker.Open(ctx, name, o)
	if err != nil {
		return nil, err
	}
	return timedQueue{q, p}, nil
}

type timedQueue struct {
	driver.Queue
	p timed
}

func (q timedQueue) Settle(ctx context.Context, s []driver.Settlement) []error {
	defer q.p.note(time.Now())
	return q.Queue.Settle(ctx, s)
}

func (q timedQueue) AcceptSession(ctx context.Context, id string, wait time.Duration) (driver.Session, error) {
	s, err := q.Queue.AcceptSession(ctx, id, wait)
	if err != nil {
		return nil, err
	}
	return timedSession{s, q.p}, nil
}

type timedSession struct {
	driver.Session
	p timed
}

func (s timedSession) Settle(ctx context.Context, x []driver.Settlement) []error {
	defer s.p.note(time.Now())
	return s.Session.Settle(ctx, x)
}

func (p timed) note(begin time.Time) {
	took := int64(time.Since(begin))
	p.calls.Add(1)
	for {
		most := p.most.Load()
		if took <= most || p.most.CompareAndSwap(most, took) {
			return
		}
	}
}
