package worker_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/queuetest"
	"github.com/queue-runtime/queue/worker"
)

const (
	farTrip  = 40 * time.Millisecond
	farBatch = 10
	farHang  = 90 * time.Second // longer than a lock
)

// farBroker is a broker behind a round trip of farTrip, whose calls of Receive bring up to
// farBatch messages, as those of SQS do.
type farBroker struct {
	driver.Broker
	parallel bool  // it says so
	counts   bool  // a release is a delivery, as it is with SQS
	hangs    int64 // this call of Receive brings nothing, for farHang; 0 = none

	released atomic.Int64 // while it counts them

	down    atomic.Bool // calls of Receive fail
	calls   atomic.Int64
	running atomic.Int64 // calls of Receive
	most    atomic.Int64 // that ran at once
}

func (b *farBroker) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := b.Broker.Open(ctx, name, o)
	if err != nil {
		return nil, err
	}
	return &farQueue{Queue: q, b: b}, nil
}

type farQueue struct {
	driver.Queue
	b *farBroker
}

func (q *farQueue) Capabilities() driver.Capabilities {
	c := q.Queue.Capabilities()
	if q.b.parallel {
		c.ReceiveBatch = farBatch
	}
	c.ReleaseUncounted = !q.b.counts
	return c
}

// travel takes d, unless ctx ends first.
func travel(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (q *farQueue) Receive(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
	call := q.b.calls.Add(1)
	n := q.b.running.Add(1)
	defer q.b.running.Add(-1)
	for most := q.b.most.Load(); n > most && !q.b.most.CompareAndSwap(most, n); most = q.b.most.Load() {
	}
	if call == q.b.hangs {
		<-time.After(farHang) // and does not heed ctx
		return nil, ctx.Err()
	}
	if err := travel(ctx, farTrip/2); err != nil {
		return nil, err
	}
	if q.b.down.Load() {
		return nil, queuetest.Unavailable()
	}
	batch, err := q.Queue.Receive(ctx, min(max, farBatch), wait)
	if len(batch) > 0 {
		<-time.After(farTrip / 2) // the messages are on their way, whatever becomes of ctx
	}
	return batch, err
}

func (q *farQueue) Settle(ctx context.Context, all []driver.Settlement) []error {
	if err := travel(ctx, farTrip); err != nil {
		errs := make([]error, len(all))
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	if q.b.counts {
		all = counted(all, &q.b.released)
	}
	return q.Queue.Settle(ctx, all)
}

// counted turns releases into abandons, and counts them in n.
func counted(all []driver.Settlement, n *atomic.Int64) []driver.Settlement {
	all = slices.Clone(all)
	for i := range all {
		if all[i].Kind == driver.Release {
			all[i].Kind = driver.Abandon
			n.Add(1)
		}
	}
	return all
}

// far opens n receivers of the orders at such a broker, in a client without encryption.
func (x *fixture) far(b *farBroker, n int) []*queue.Receiver {
	x.Helper()
	b.Broker = x.Broker.Connect()
	c, err := queue.New(b, &queue.Options{Logger: quiet()})
	x.Must(err)
	x.Cleanup(func() { x.Must(c.Close(context.Background())) })
	out := make([]*queue.Receiver, n)
	for i := range out {
		out[i], err = c.Receiver(x.Context(), orders, &queue.ReceiverOptions{Wait: 20 * time.Second})
		x.Must(err)
	}
	return out
}

// fill stores n messages, whose IDs begin with a name.
func (x *fixture) fill(name string, n int) {
	x.Helper()
	c, err := queue.New(x.Broker.Connect(), &queue.Options{Logger: quiet()})
	x.Must(err)
	s, err := c.Sender(x.Context(), orders, nil)
	x.Must(err)
	messages := make([]*queue.Message, n)
	for i := range messages {
		messages[i] = &queue.Message{ID: fmt.Sprint(name, i), Body: []byte("x")}
	}
	_, err = s.SendBatch(x.Context(), messages)
	x.Must(err)
	x.Must(c.Close(x.Context()))
}

// drained is how long a pool with that many receivers takes for n messages.
func drained(t *testing.T, b *farBroker, receivers, n int) (took time.Duration) {
	inBubble(t, nil, func(x *fixture) {
		x.fill("m", n)
		p, err := worker.New(&worker.Options{Concurrency: 256})
		x.Must(err)
		begin := time.Now()
		ctx, cancel := context.WithCancel(x.Context())
		defer cancel()
		var handled atomic.Int64
		h := worker.HandlerFunc(func(context.Context, *queue.Delivery) error {
			if handled.Add(1) == int64(n) {
				took = time.Since(begin)
				cancel()
			}
			return nil
		})
		for _, r := range x.far(b, receivers) {
			x.Must(p.Handle(r, h, nil))
		}
		x.Must(p.Run(ctx))
		if left := len(x.Stored(orders)); left > 0 || handled.Load() != int64(n) {
			t.Errorf("%d messages handled, %d left of %d", handled.Load(), left, n)
		}
	})
	return took
}

// One Receiver at a distant broker whose calls bring few messages is as fast as eight that
// make one call at a time each, because it makes as many calls at once as its slots need.
func TestOneReceiverIsAsFastAsEight(t *testing.T) {
	const n = 8000
	eight := drained(t, &farBroker{}, 8, n)
	far := &farBroker{parallel: true}
	one := drained(t, far, 1, n)
	alone := drained(t, &farBroker{}, 1, n)
	t.Logf("messages a second: %.0f by eight receivers, %.0f by one, %.0f by one without calls side by side; %d calls at once",
		n/eight.Seconds(), n/one.Seconds(), n/alone.Seconds(), far.most.Load())
	if ratio := eight.Seconds() / one.Seconds(); ratio < 0.9 {
		t.Errorf("one receiver has %.2f of the rate of eight, want at least 0.9", ratio)
	}
	if most := far.most.Load(); most > 26 {
		t.Errorf("%d calls at once for 256 slots, want at most 26", most)
	}
}

// An empty queue is asked by one call at a time, and holds no slots that others could use.
func TestIdleQueueIsAskedByOneCall(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		far := &farBroker{parallel: true}
		r := x.far(far, 1)[0]
		x.fill("m", 3000)
		_, stop := x.run(r, worker.HandlerFunc(func(context.Context, *queue.Delivery) error { return nil }), &worker.Options{Concurrency: 128}, nil)
		for len(x.Stored(orders)) > 0 {
			x.Pass(10 * time.Millisecond)
		}
		if far.most.Load() < 5 {
			x.Errorf("%d calls at once over a backlog, want several", far.most.Load())
		}
		x.Pass(2 * time.Second)
		before := far.calls.Load()
		for range 100 {
			x.Pass(time.Second)
			if n := far.running.Load(); n > 1 {
				x.Fatalf("%d calls are under way over an empty queue, want 1", n)
			}
		}
		if n := far.calls.Load() - before; n > 6 {
			x.Errorf("%d calls in 100 s over an empty queue, want one in 20 s", n)
		}
		x.Must(stop())
	})
}

// While a message that may have ended a process is handled alone, no call is under way and
// no other message is handled. Its neighbours are handled many at a time. If the broker
// counts releases, none of them is spent on those that wait.
func TestSuspectsAreHandledAloneBesideManyCalls(t *testing.T) {
	for _, counts := range []bool{false, true} {
		t.Run(fmt.Sprintf("counts %t", counts), func(t *testing.T) {
			inBubble(t, nil, func(x *fixture) { suspectsBesideManyCalls(x, counts) })
		})
	}
}

func suspectsBesideManyCalls(x *fixture, counts bool) {
	far := &farBroker{parallel: true, counts: counts}
	r := x.far(far, 1)[0]
	const suspects, others = 15, 1200 // more suspects than one call brings
	x.fill("other-a", others/2)
	x.fill("suspect", suspects)
	x.rewind("suspect")
	x.fill("other-b", others/2)
	var mu sync.Mutex
	running, together, handled := 0, 0, map[string]int{}
	h := worker.HandlerFunc(func(_ context.Context, d *queue.Delivery) error {
		mu.Lock()
		running++
		handled[d.ID]++
		alone := d.ID[0] == 's'
		if alone && (running > 1 || far.running.Load() > 0) {
			x.Errorf("%s was handled beside %d messages and %d calls", d.ID, running-1, far.running.Load())
		}
		if !alone && d.Count > 1 || d.Count > 2 {
			x.Errorf("%s is delivered %d times: its lock ran out while it waited", d.ID, d.Count)
		}
		together = max(together, running)
		mu.Unlock()
		took := 100 * time.Millisecond
		if alone {
			took = time.Minute // longer than the lock: it must be renewed
		}
		<-time.After(took)
		mu.Lock()
		defer mu.Unlock()
		if running--; alone && (running > 0 || far.running.Load() > 0) {
			x.Errorf("%s was handled beside %d messages and %d calls", d.ID, running, far.running.Load())
		}
		return nil
	})
	_, stop := x.run(r, h, &worker.Options{Concurrency: 64}, nil)
	for begin := time.Now(); time.Since(begin) < time.Hour; x.Pass(time.Second) {
		s, err := r.Stats(x.Context())
		x.Must(err)
		if s.Ready+s.InFlight+s.Scheduled == 0 {
			break
		}
	}
	if n := far.released.Load(); n > 0 {
		x.Errorf("%d deliveries were spent on releases", n)
	}
	if n := far.most.Load(); n < 2 {
		x.Errorf("%d calls at once, want several", n)
	}
	x.Must(stop())
	if len(handled) != suspects+others || together < 20 {
		x.Errorf("%d messages handled, up to %d at once; want %d, and many at once", len(handled), together, suspects+others)
	}
	for id, n := range handled {
		if n > 1 {
			x.Errorf("%s was handled %d times", id, n)
		}
	}
}

// The lock of a message that is to be handled alone is kept while a call under way is waited
// for, however long that takes.
func TestASuspectWaitsForTheCalls(t *testing.T) {
	for _, counts := range []bool{false, true} {
		t.Run(fmt.Sprintf("counts %t", counts), func(t *testing.T) {
			inBubble(t, nil, func(x *fixture) {
				far := &farBroker{parallel: true, counts: counts, hangs: 10}
				r := x.far(far, 1)[0]
				x.fill("suspect", 1)
				x.rewind("suspect")
				x.fill("m", 1200)
				begin := time.Now()
				var at time.Duration
				count := 0
				h := worker.HandlerFunc(func(_ context.Context, d *queue.Delivery) error {
					if d.ID == "suspect0" {
						if at, count = time.Since(begin), d.Count; far.running.Load() > 0 {
							x.Errorf("handled beside %d calls", far.running.Load())
						}
					}
					<-time.After(100 * time.Millisecond)
					return nil
				})
				_, stop := x.run(r, h, &worker.Options{Concurrency: 64}, nil)
				x.Pass(5 * time.Minute)
				x.Must(stop())
				if at < farHang || at > farHang+10*time.Second || count != 2 {
					x.Errorf("handled after %s as delivery %d, want just after the call of %s, and 2", at, count, farHang)
				}
				if n := far.released.Load(); n > 0 {
					x.Errorf("%d deliveries were spent on releases", n)
				}
			})
		})
	}
}

// rewind makes messages look as if a process had ended with them in hand.
func (x *fixture) rewind(name string) {
	x.Helper()
	c, err := queue.New(x.Broker.Connect(), &queue.Options{Logger: quiet()})
	x.Must(err)
	r, err := c.Receiver(x.Context(), orders, &queue.ReceiverOptions{Wait: time.Second})
	x.Must(err)
	all, err := r.Receive(x.Context(), 1000)
	x.Must(err)
	for _, d := range all {
		if len(d.ID) > len(name) && d.ID[:len(name)] == name {
			x.Must(d.Abandon(x.Context(), 1300*time.Millisecond)) // ready amid many calls
		} else {
			x.Must(d.Release(x.Context(), 0))
		}
	}
	x.Must(c.Close(x.Context()))
}

// A pool that is stopped in the middle of many calls leaves no message locked behind, and
// loses none.
func TestStopAmidManyCalls(t *testing.T) {
	for stopAt := 50 * time.Millisecond; stopAt < time.Second; stopAt += 73 * time.Millisecond {
		inBubble(t, nil, func(x *fixture) {
			far := &farBroker{parallel: true}
			r := x.far(far, 1)[0]
			const n = 3000
			x.fill("m", n)
			var handled atomic.Int64
			_, stop := x.run(r, worker.HandlerFunc(func(context.Context, *queue.Delivery) error {
				handled.Add(1)
				return nil
			}), &worker.Options{Concurrency: 128}, nil)
			x.Pass(stopAt)
			x.Must(stop())
			if running := far.running.Load(); running > 0 {
				x.Errorf("%d calls are under way after Run has returned", running)
			}
			s, err := r.Stats(x.Context())
			x.Must(err)
			if s.InFlight != 0 || s.Ready+handled.Load() != n {
				x.Errorf("stopped after %s: %d handled and %+v of %d", stopAt, handled.Load(), s, n)
			}
		})
	}
}

// An outage that meets many calls is waited for once, and receiving is back within seconds.
func TestOutageMeetsManyCalls(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		far := &farBroker{parallel: true}
		r := x.far(far, 1)[0]
		const n = 20_000
		x.fill("m", n)
		var handled atomic.Int64
		_, stop := x.run(r, worker.HandlerFunc(func(context.Context, *queue.Delivery) error {
			handled.Add(1)
			return nil
		}), &worker.Options{Concurrency: 256}, nil)
		x.Pass(time.Second)
		far.down.Store(true)
		x.Pass(time.Second)
		before, done := far.calls.Load(), handled.Load()
		x.Pass(5 * time.Minute)
		if n := far.calls.Load() - before; n < 20 || n > 120 || handled.Load() != done {
			x.Errorf("%d calls in 5 minutes of an outage, want about one in 8 s", n)
		}
		far.down.Store(false)
		x.Pass(20 * time.Second)
		if handled.Load() != n {
			x.Errorf("%d of %d handled 20 s after the outage, %d before", handled.Load(), n, done)
		}
		x.Must(stop())
	})
}
