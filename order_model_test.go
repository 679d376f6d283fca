package queue_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/fixturetest"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/replay"
)

// TestOrderWithinSessions: every message that arrives before the one that its sender sent
// before it in the session is marked, whether they were sent one after the other or in one
// call, and no other is. An honest broker, with sends that fail and senders that restart,
// causes no mark.
func TestOrderWithinSessions(t *testing.T) {
	for _, reorders := range []bool{false, true} {
		t.Run(fmt.Sprint("reorders=", reorders), func(t *testing.T) {
			t.Parallel()
			sum := map[string]int{}
			for seed := range accountSchedules() {
				runOrderSchedule(t, seed, sum, reorders)
				if t.Failed() {
					t.Fatalf("seed %d", seed)
				}
			}
			t.Log(sum)
			for _, what := range []string{"in order", "first", "unaccounted", "not sent", "unconfirmed"} {
				if sum[what] == 0 {
					t.Errorf("no message is %s", what)
				}
			}
			if (sum["marked"] > 0) != reorders {
				t.Errorf("%d messages are marked", sum["marked"])
			}
		})
	}
}

// failingCalls is a broker that refuses whole calls, or loses their answers.
type failingCalls struct {
	driver.Broker
	random *rand.Rand
}

func (b *failingCalls) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := b.Broker.Open(ctx, name, o)
	return &failingQueue{q, b}, err
}

type failingQueue struct {
	driver.Queue
	b *failingCalls
}

func (q *failingQueue) Send(ctx context.Context, m []*driver.Message) []driver.SendResult {
	n := q.b.random.IntN(10)
	if n > 2 {
		return q.Queue.Send(ctx, m)
	}
	out := make([]driver.SendResult, len(m))
	if n == 2 {
		q.Queue.Send(ctx, m)
	}
	for i := range out {
		if out[i].Err = driver.Errorf(driver.Unavailable, "connection reset"); n == 0 {
			out[i].Err = driver.Errorf(driver.Full, "full")
		}
	}
	return out
}

// orderSchedule is one random schedule. before has for each message the one that its
// sender sent before it in the session; "" if there is none.
type orderSchedule struct {
	*fixture
	random  *rand.Rand
	sum     map[string]int
	before  map[string]string
	arrived map[string]bool
	sent    int
}

func runOrderSchedule(t *testing.T, seed uint64, sum map[string]int, reorders bool) {
	synctest.Test(t, func(t *testing.T) {
		x := &fixture{&fixturetest.Fixture{T: t, Ring: newRing(t, "k1")}}
		x.Broker = memqueue.New(&memqueue.Options{Default: memqueue.QueueOptions{Lock: 30 * time.Second, MaxDeliveries: -1, SessionOnly: true}})
		store, err := replay.NewMemory(nil)
		x.Must(err)
		x.Client, err = queue.New(x.Broker, &queue.Options{
			Keys: x.Ring, ReplayStore: store, Logger: quiet(),
			Crypto: queue.CryptoConfig{Enabled: true, PlaintextPolicy: queue.Reject, TrackReplays: true},
		})
		x.Must(err)
		s := &orderSchedule{fixture: x, random: rand.New(rand.NewPCG(seed, 6)), sum: sum, before: make(map[string]string), arrived: make(map[string]bool)}
		r := x.Receiver(orders, &queue.ReceiverOptions{Wait: time.Second})
		x.Wait(time.Minute)
		for range 8 {
			s.post(s.random.IntN(2))
			if reorders {
				s.Rewrite(orders, func(all []driver.Message) []driver.Message {
					s.random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
					return all
				})
			}
			if s.random.IntN(3) > 0 {
				s.receive(r, 1+s.random.IntN(4))
			}
		}
		s.receive(r, 100)
		x.Must(x.Client.Close(x.Context()))
	})
}

// post lets a new sender, which stands for a restart, send to some sessions: one after the
// other, and in calls of several.
func (s *orderSchedule) post(n int) {
	sender := s.senderNamed(fmt.Sprint("s", n), &failingCalls{s.Broker.Connect(), s.random})
	confirmed := make(map[string]string) // the last of each session
	for range 1 + s.random.IntN(5) {
		last := make(map[string]string) // the last of each session within the call
		var all []*queue.Message
		for range 1 + s.random.IntN(3) {
			s.sent++
			m := &queue.Message{ID: fmt.Sprint(s.sent), SessionID: fmt.Sprint("session", s.random.IntN(2)), Body: []byte("a")}
			all = append(all, m)
			if s.random.IntN(8) == 0 {
				m.TTL = time.Hour // it is in the stream that is not accounted
				continue
			}
			s.before[m.ID] = confirmed[m.SessionID]
			if p := last[m.SessionID]; p != "" {
				s.before[m.ID] = p
			}
			last[m.SessionID] = m.ID
		}
		results, _ := sender.SendBatch(s.Context(), all)
		for i, r := range results {
			switch {
			case r.Err == nil && all[i].TTL == 0:
				confirmed[all[i].SessionID] = all[i].ID
			case errors.Is(r.Err, queue.ErrUnconfirmed):
				s.sum["unconfirmed"]++
			case r.Err != nil:
				s.sum["not sent"]++
			}
		}
	}
}

// receive takes up to n messages of each session, and compares their marks.
func (s *orderSchedule) receive(r *queue.Receiver, n int) {
	for {
		session, err := r.NextSession(s.Context())
		if errors.Is(err, queue.ErrNoSession) {
			return
		}
		s.Must(err)
		for _, d := range s.Some(session.Receive(s.Context(), n)) {
			s.compare(d)
			s.Must(d.Complete(s.Context()))
		}
		s.Must(session.Close(s.Context()))
		if n < 100 {
			return
		}
	}
}

func (s *orderSchedule) compare(d *queue.Delivery) {
	before, accounted := s.before[d.ID]
	early := before != "" && !s.arrived[before]
	s.arrived[d.ID] = true
	if d.Gap != early {
		s.Errorf("message %s of %s, after %q: Gap is %t, want %t", d.ID, d.SessionID, before, d.Gap, early)
	}
	switch {
	case !accounted:
		s.sum["unaccounted"]++
	case early:
		s.sum["marked"]++
	case before == "":
		s.sum["first"]++
	default:
		s.sum["in order"]++
	}
}
