package worker_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/worker"
)

// killed is a process that died: its messages stay locked, until their locks run out.
type killed struct{ *fixture }

// take receives what a process has in hand when it is killed, n times.
func (x killed) take(n, messages int) {
	x.Helper()
	r := x.Receiver(orders, &queue.ReceiverOptions{Wait: time.Second})
	for range n {
		batch, err := r.Receive(x.Context(), messages)
		x.Must(err)
		if len(batch) != messages {
			x.Fatalf("%d messages in hand, want %d", len(batch), messages)
		}
		x.Pass(time.Minute)
	}
}

// A message that ends its process is dead-lettered before its handler runs once more, by
// the pool's own limit.
func TestPoisonIsDeadLetteredOnArrival(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{Body: []byte("x")})
		killed{x}.take(3, 1)
		h := worker.HandlerFunc(func(_ context.Context, d *queue.Delivery) error {
			x.Errorf("delivery %d was handled", d.Count)
			return nil
		})
		_, stop := x.run(x.Receiver(orders, nil), h, &worker.Options{OnError: func(_ context.Context, _ *queue.Delivery, err error) {
			x.Errorf("OnError was told of %v, which no handler returned", err)
		}}, &worker.HandleOptions{MaxDeliveries: 3})
		x.Pass(10 * time.Second)
		x.Must(stop())
		if got := x.DeadReasons(orders); !slices.Equal(got, []string{"max_deliveries"}) {
			x.Errorf("dead letters %v", got)
		}
	})
}

// A pool whose limit could never be reached says so.
func TestMaxDeliveriesAboveTheReceivers(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		p, err := worker.New(nil)
		x.Must(err)
		err = p.Handle(x.Receiver(orders, nil), worker.HandlerFunc(nil), &worker.HandleOptions{MaxDeliveries: 11})
		if !errors.Is(err, queue.ErrInvalidOptions) {
			x.Errorf("Handle = %v, want ErrInvalidOptions", err)
		}
	})
}

// A Receiver has one handler in a pool.
func TestReceiverWithTwoHandlers(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		p, err := worker.New(nil)
		x.Must(err)
		r, h := x.Receiver(orders, nil), worker.HandlerFunc(func(context.Context, *queue.Delivery) error { return nil })
		x.Must(p.Handle(r, h, nil))
		if err := p.Handle(r, h, nil); !errors.Is(err, queue.ErrInvalidOptions) {
			x.Errorf("Handle = %v, want ErrInvalidOptions", err)
		}
	})
}

// company notes for each message with how many others it was handled at once.
type company struct {
	mu      sync.Mutex
	running int
	most    map[string]int
}

func (c *company) handle(d *queue.Delivery, took time.Duration) {
	c.mu.Lock()
	c.running++
	c.most[d.ID] = c.running
	c.mu.Unlock()
	time.Sleep(took)
	c.mu.Lock()
	c.running--
	c.mu.Unlock()
}

// afterCrash leaves messages that a killed process had in hand, and others behind them;
// with sessions, each in one of its own.
func (x *fixture) afterCrash(suspects, others int, sessions bool) {
	x.Helper()
	message := func(id string) {
		m := &queue.Message{ID: id, Body: []byte("x")}
		if sessions {
			m.SessionID = id
		}
		x.Send(m)
	}
	for i := range suspects {
		message(fmt.Sprint("suspect", i))
	}
	killed{x}.take(1, suspects)
	for i := range others {
		message(fmt.Sprint("other", i))
	}
}

// After a crash, what was in hand is handled one by one, beside no other message, and what
// was not in hand many at a time.
func TestSuspectsAreHandledAlone(t *testing.T) {
	for _, sessions := range []bool{false, true} {
		inBubble(t, nil, func(x *fixture) {
			const suspects, others = 6, 20
			x.afterCrash(suspects, others, sessions)
			c := &company{most: make(map[string]int)}
			h := worker.HandlerFunc(func(_ context.Context, d *queue.Delivery) error {
				c.handle(d, time.Second)
				return nil
			})
			_, stop := x.run(x.Receiver(orders, nil), h, nil, &worker.HandleOptions{Sessions: sessions})
			x.Pass(time.Minute)
			x.Must(stop())
			together := 0
			for id, n := range c.most {
				if id[0] == 's' && n > 1 {
					x.Errorf("sessions %t: %s was handled beside %d others", sessions, id, n-1)
				}
				together = max(together, n)
			}
			if len(c.most) != suspects+others || together < 2 {
				x.Errorf("sessions %t: handled %v, want %d, and the others together", sessions, slices.Sorted(maps.Keys(c.most)), suspects+others)
			}
		})
	}
}

// Of several queues of a pool one suspect at a time is handled: the one that ended the process
// would take the first of each other queue along, until both are dead letters. One that does
// not return keeps those of other queues waiting for 30 s each.
func TestSuspectsOfSeveralQueues(t *testing.T) {
	for _, hangs := range []bool{false, true} {
		for _, sessions := range []bool{false, true} {
			inBubble(t, nil, func(x *fixture) {
				queues := []string{"a", "b", "c"}
				const each = 4
				var receivers []*queue.Receiver
				for _, name := range queues {
					s := x.Sender(name)
					for i := range each {
						m := &queue.Message{ID: fmt.Sprint(name, i), Body: []byte("x")}
						if sessions {
							m.SessionID = m.ID
						}
						_, err := s.Send(x.Context(), m)
						x.Must(err)
					}
					r := x.Receiver(name, &queue.ReceiverOptions{Wait: time.Second})
					batch, err := r.Receive(x.Context(), each) // by a process that is killed
					x.Must(err)
					if len(batch) != each {
						x.Fatalf("%d messages in hand, want %d", len(batch), each)
					}
					receivers = append(receivers, r)
				}
				x.Pass(time.Minute)
				p, err := worker.New(&worker.Options{Concurrency: 12})
				x.Must(err)
				c := &company{most: make(map[string]int)}
				over := make(chan struct{})
				begin := time.Now()
				var last time.Time
				for i, r := range receivers {
					x.Must(p.Handle(r, worker.HandlerFunc(func(_ context.Context, d *queue.Delivery) error {
						if hangs && i == 0 {
							<-over
							return nil
						}
						c.handle(d, time.Second)
						c.mu.Lock()
						defer c.mu.Unlock()
						last = time.Now()
						return nil
					}), &worker.HandleOptions{Sessions: sessions, MaxProcessing: time.Hour}))
				}
				ctx, cancel := context.WithCancel(x.Context())
				done := make(chan error, 1)
				go func() { done <- p.Run(ctx) }()
				x.Pass(10 * time.Minute)
				close(over)
				x.Pass(time.Minute)
				cancel()
				x.Must(<-done)
				want, most := 3*each, time.Minute
				if hangs {
					want, most = 2*each, 2*each*(30+2)*time.Second
				}
				c.mu.Lock()
				defer c.mu.Unlock()
				if took := last.Sub(begin); len(c.most) != want || took > most {
					x.Errorf("sessions %t, one hangs %t: %d of %d were handled, the last after %s, want %s at most", sessions, hangs, len(c.most), want, took, most)
				}
				for id, n := range c.most {
					if n > 1 && !hangs {
						x.Errorf("sessions %t: %s was handled beside %d other suspects", sessions, id, n-1)
					}
				}
			})
		}
	}
}

// A failure that this process saw is no crash: its retry runs beside others.
func TestRetriesAreNotHandledAlone(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		const n = 16
		for i := range n {
			x.Send(&queue.Message{ID: fmt.Sprint(i), Body: []byte("x")})
		}
		c := &company{most: make(map[string]int)}
		h := worker.HandlerFunc(func(_ context.Context, d *queue.Delivery) error {
			c.handle(d, time.Second)
			if d.Count < 3 {
				return errors.New("once more")
			}
			return nil
		})
		begin := time.Now()
		_, stop := x.run(x.Receiver(orders, nil), h, nil, &worker.HandleOptions{Retry: backoff.Fixed(time.Second)})
		for len(x.Stored(orders)) > 0 && time.Since(begin) < time.Minute {
			x.Pass(100 * time.Millisecond)
		}
		x.Must(stop())
		if took := time.Since(begin); took > 10*time.Second {
			x.Errorf("%d messages took %s for three deliveries each", n, took)
		}
	})
}

// Deliveries that failed in other processes look like crashes. After twice as many of
// them as run at once the queue is trusted, so that a backlog is not handled one by one.
func TestABacklogOfRetriesIsNotHandledAlone(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		const n = 100
		for i := range n {
			x.Send(&queue.Message{ID: fmt.Sprint(i), Body: []byte("x")})
		}
		killed{x}.take(1, n)
		c := &company{most: make(map[string]int)}
		h := worker.HandlerFunc(func(_ context.Context, d *queue.Delivery) error {
			c.handle(d, time.Second)
			return nil
		})
		begin := time.Now()
		_, stop := x.run(x.Receiver(orders, nil), h, &worker.Options{Concurrency: 8}, nil)
		for len(x.Stored(orders)) > 0 && time.Since(begin) < 5*time.Minute {
			x.Pass(100 * time.Millisecond)
		}
		x.Must(stop())
		if took := time.Since(begin); took < 16*time.Second || took > 40*time.Second {
			x.Errorf("took %s, want 16 messages alone and the rest 8 at a time", took)
		}
	})
}

// A handler that does not return keeps a suspect waiting for 30 s, and not for ever; its
// lock is kept meanwhile.
func TestASuspectDoesNotWaitForEver(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{ID: "suspect", Body: []byte("x")})
		killed{x}.take(1, 1)
		hung := make(chan struct{})
		var at time.Time
		var count int
		h := worker.HandlerFunc(func(_ context.Context, d *queue.Delivery) error {
			if d.ID == "hangs" {
				<-hung
				return nil
			}
			at, count = time.Now(), d.Count
			return nil
		})
		held := x.One(x.Receiver(orders, nil)) // so that the other comes first
		x.Send(&queue.Message{ID: "hangs", Body: []byte("x")})
		_, stop := x.run(x.Receiver(orders, nil), h, nil, nil)
		x.Pass(time.Second)
		x.Must(held.Release(x.Context(), 0))
		begin := time.Now()
		x.Pass(2 * time.Minute)
		if took := at.Sub(begin); at.IsZero() || took < 25*time.Second || took > 40*time.Second || count != 2 {
			x.Errorf("handled after %s as delivery %d, want some 30 s and 2", took, count)
		}
		close(hung)
		x.Must(stop())
	})
}

// lossySessions fails to renew the sessions whose ID is lost.
type lossySessions struct {
	driver.Broker
	lost string
}

func (p lossySessions) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := p.Broker.Open(ctx, name, o)
	return lossyQueue{q, p.lost}, err
}

type lossyQueue struct {
	driver.Queue
	lost string
}

func (q lossyQueue) AcceptSession(ctx context.Context, id string, wait time.Duration) (driver.Session, error) {
	s, err := q.Queue.AcceptSession(ctx, id, wait)
	if err != nil || s.ID() != q.lost {
		return s, err
	}
	return lossySession{s}, nil
}

type lossySession struct{ driver.Session }

func (lossySession) RenewSession(context.Context) (time.Time, error) {
	return time.Time{}, driver.Errorf(driver.SessionLost, "another receiver has it")
}

// A message whose session is lost while it waits to be handled alone is not handled: another
// receiver may have it by then.
func TestASuspectOfALostSessionIsNotHandled(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{ID: "suspect", SessionID: "lost", Body: []byte("x")})
		killed{x}.take(1, 1)
		c, err := queue.New(lossySessions{x.Broker, "lost"}, &queue.Options{Keys: x.Ring, ReplayStore: x.Store, Logger: quiet(),
			Crypto: queue.CryptoConfig{Enabled: true, TrackReplays: true}})
		x.Must(err)
		r, err := c.Receiver(x.Context(), orders, &queue.ReceiverOptions{Wait: time.Second})
		x.Must(err)
		held, err := r.AcceptSession(x.Context(), "lost")
		x.Must(err)
		x.Send(&queue.Message{ID: "slow", SessionID: "kept", Body: []byte("x")})
		h := worker.HandlerFunc(func(_ context.Context, d *queue.Delivery) error {
			if d.ID == "slow" {
				time.Sleep(25 * time.Second) // longer than half of a lock, when a renewal is due
				return nil
			}
			x.Errorf("delivery %d of a lost session was handled", d.Count)
			return nil
		})
		_, stop := x.run(r, h, nil, &worker.HandleOptions{Sessions: true})
		x.Pass(time.Second)
		x.Must(held.Close(x.Context())) // the suspect comes second, and waits for the other
		x.Pass(28 * time.Second)
		x.Must(stop())
		if n := len(x.Stored(orders)); n != 1 {
			x.Errorf("%d messages are left, want that of the lost session", n)
		}
		x.Must(c.Close(x.Context()))
	})
}

// A suspect that never returns keeps its slot, and not its queue: the others go on when its
// time is over.
func TestAHangingSuspectGivesWay(t *testing.T) {
	for _, sessions := range []bool{false, true} {
		inBubble(t, nil, func(x *fixture) {
			const suspects, others = 3, 20
			x.afterCrash(suspects, others, sessions)
			hung := make(chan struct{})
			var mu sync.Mutex
			handled := make(map[string]time.Time)
			begin := time.Now()
			h := worker.HandlerFunc(func(_ context.Context, d *queue.Delivery) error {
				if d.ID[0] == 's' {
					<-hung
					return nil
				}
				mu.Lock()
				defer mu.Unlock()
				handled[d.ID] = time.Now()
				return nil
			})
			_, stop := x.run(x.Receiver(orders, nil), h, &worker.Options{Concurrency: 5, CancelGrace: 5 * time.Second}, &worker.HandleOptions{Sessions: sessions, MaxProcessing: time.Minute})
			x.Pass(10 * time.Minute)
			mu.Lock()
			if len(handled) != others {
				x.Errorf("sessions %t: %d of %d others were handled in 10 minutes", sessions, len(handled), others)
			}
			for id, at := range handled {
				if took := at.Sub(begin); took > 4*time.Minute { // a minute and 5 s for each suspect
					x.Errorf("sessions %t: %s was handled after %s", sessions, id, took)
				}
			}
			mu.Unlock()
			close(hung)
			x.Pass(time.Minute)
			x.Must(stop())
			if n := len(x.Stored(orders)); n != 0 {
				x.Errorf("sessions %t: %d messages are left", sessions, n)
			}
		})
	}
}

// countedReleases is a broker that counts a release as a delivery, and says how many it saw.
type countedReleases struct {
	driver.Broker
	n *atomic.Int32
}

func (p countedReleases) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := p.Broker.Open(ctx, name, o)
	return countedReleasesQueue{q, p.n}, err
}

type countedReleasesQueue struct {
	driver.Queue
	n *atomic.Int32
}

func (q countedReleasesQueue) Capabilities() driver.Capabilities {
	c := q.Queue.Capabilities()
	c.ReleaseUncounted = false
	return c
}

func (q countedReleasesQueue) Settle(ctx context.Context, settlements []driver.Settlement) []error {
	for _, s := range settlements {
		if s.Kind == driver.Release {
			q.n.Add(1)
		}
	}
	return q.Queue.Settle(ctx, settlements)
}

// On a broker that counts a release as a delivery, suspects that come together wait for
// their turns, and spend none.
func TestSuspectsThatWaitSpendNoDelivery(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		const suspects, others = 6, 800
		var released atomic.Int32
		c, err := queue.New(countedReleases{x.Broker, &released}, &queue.Options{Keys: x.Ring, ReplayStore: x.Store, Logger: quiet(),
			Crypto: queue.CryptoConfig{Enabled: true, TrackReplays: true}})
		x.Must(err)
		r, err := c.Receiver(x.Context(), orders, &queue.ReceiverOptions{Wait: time.Second})
		x.Must(err)
		for i := range suspects {
			x.Send(&queue.Message{ID: fmt.Sprint("suspect", i), Body: []byte("x")})
		}
		batch, err := r.Receive(x.Context(), suspects) // a process that is killed at once
		x.Must(err)
		if len(batch) != suspects {
			x.Fatalf("%d messages in hand, want %d", len(batch), suspects)
		}
		for range others { // so that many are fetched at a time when the locks run out
			x.Send(&queue.Message{Body: []byte("x")})
		}
		handled := &company{most: make(map[string]int)}
		var mu sync.Mutex
		most := 0
		h := worker.HandlerFunc(func(_ context.Context, d *queue.Delivery) error {
			if d.ID[0] != 's' {
				handled.handle(d, time.Second)
				return nil
			}
			handled.handle(d, 20*time.Second) // the locks of those that wait have to be kept
			mu.Lock()
			defer mu.Unlock()
			most = max(most, d.Count)
			return nil
		})
		_, stop := x.run(r, h, nil, nil)
		x.Pass(5 * time.Minute)
		x.Must(stop())
		mu.Lock()
		defer mu.Unlock()
		for i := range suspects {
			if with := handled.most[fmt.Sprint("suspect", i)]; with != 1 {
				x.Errorf("suspect %d was handled beside %d others, want alone", i, with-1)
			}
		}
		if n := released.Load(); n != 0 || most != 2 {
			x.Errorf("%d deliveries were spent on releases, and one suspect came at delivery %d, want 0 and 2", n, most)
		}
		x.Must(c.Close(x.Context()))
	})
}
