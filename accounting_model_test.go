package queue_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/deadletter"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/internal/fixturetest"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/replay"
)

// accountSchedules is how many random schedules of each kind run: 10^5 with QRT_SOAK=1, and
// with -short, as against each mutant, as many as still have every step in them.
func accountSchedules() uint64 {
	if os.Getenv("QRT_SOAK") == "1" {
		return 100_000
	}
	if testing.Short() && scale == 1 {
		return 60
	}
	return 200 / scale
}

// TestHonestSchedulesReportNothing: failing and unanswered sends, restarts, abandons,
// crashes, dead letters, redrives and purges make no message late, as long as delays stay
// below MissingAfter.
func TestHonestSchedulesReportNothing(t *testing.T) {
	t.Parallel()
	sum := map[string]int{}
	for seed := range accountSchedules() {
		runAccountSchedule(t, seed, sum, nil)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Log(sum)
	for _, what := range []string{"sent", "not sent", "unconfirmed", "completed", "abandoned", "dead-lettered", "crashed", "sender restarted", "receiver restarted", "redriven", "resealed", "purged"} {
		if sum[what] == 0 {
			t.Errorf("nothing was %s", what)
		}
	}
}

// TestDroppingSchedulesAreReported: the same with a broker that drops messages. What it
// drops is reported, late and then missing, if a message that settles it arrives, and
// nothing else is.
func TestDroppingSchedulesAreReported(t *testing.T) {
	t.Parallel()
	sum := map[string]int{}
	for seed := range accountSchedules() {
		runAccountSchedule(t, seed, sum, (*accountSchedule).dropSome)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Log(sum)
	if sum["dropped"] == 0 || sum["expected"] == 0 || sum["expected"] == sum["dropped"] {
		t.Errorf("%d of %d dropped messages are settled: want some and not all", sum["expected"], sum["dropped"])
	}
}

// place names a message: its sender, stream and sequence.
type place struct {
	sender   string
	stream   [16]byte
	sequence uint64
}

// arrival is when a message arrived that settles its stream up to a sequence.
type arrival struct {
	settled uint64
	at      time.Time
}

// settlingStore notes what arrives at a replay store.
type settlingStore struct {
	replay.Store
	mu       sync.Mutex // guards what follows
	arrivals map[[16]byte][]arrival
	seen     map[place]bool
}

func (s *settlingStore) Begin(ctx context.Context, group string, r []replay.Request) ([]replay.Claim, error) {
	claims, err := s.Store.Begin(ctx, group, r)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range claims {
		if claims[i].Err != nil {
			continue
		}
		id := r[i].ID
		s.seen[place{id.Sender, id.Stream, id.Sequence}] = true
		s.arrivals[id.Stream] = append(s.arrivals[id.Stream], arrival{r[i].Settled, time.Now()})
	}
	return claims, err
}

// settledAt is when the first message arrived that settles p.
func (s *settlingStore) settledAt(p place) (at time.Time, ok bool) {
	for _, a := range s.arrivals[p.stream] {
		if a.settled >= p.sequence {
			return a.at, true
		}
	}
	return time.Time{}, false
}

// unreliableBroker refuses some messages, and loses answers about others.
type unreliableBroker struct {
	driver.Broker
	random   *rand.Rand
	reliable *bool
}

func (b *unreliableBroker) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := b.Broker.Open(ctx, name, o)
	return &unreliableQueue{q, b}, err
}

type unreliableQueue struct {
	driver.Queue
	b *unreliableBroker
}

func (q *unreliableQueue) Send(ctx context.Context, m []*driver.Message) []driver.SendResult {
	if *q.b.reliable {
		return q.Queue.Send(ctx, m)
	}
	out := make([]driver.SendResult, len(m))
	for i, one := range m {
		switch q.b.random.IntN(12) {
		case 0:
			out[i].Err = driver.Errorf(driver.Full, "full")
		case 1:
			out[i].Err = driver.Errorf(driver.Unavailable, "connection reset")
		case 2:
			q.Queue.Send(ctx, []*driver.Message{one})
			out[i].Err = driver.Errorf(driver.Unavailable, "connection reset")
		default:
			out[i] = q.Queue.Send(ctx, []*driver.Message{one})[0]
		}
	}
	return out
}

// accountSchedule is one random schedule.
type accountSchedule struct {
	*fixture
	random   *rand.Rand
	sum      map[string]int
	a        *accounts
	tap      *settlingStore
	reliable bool
	senders  []*queue.Sender
	receiver *queue.Receiver
	dropped  map[place]bool
	sent     int
}

func runAccountSchedule(t *testing.T, seed uint64, sum map[string]int, attack func(*accountSchedule)) {
	synctest.Test(t, func(t *testing.T) {
		a := &accounts{}
		x := &fixture{&fixturetest.Fixture{T: t, Ring: newRing(t, "k1")}}
		x.Broker = memqueue.New(&memqueue.Options{Default: memqueue.QueueOptions{Lock: 30 * time.Second, MaxDeliveries: -1}})
		store, err := replay.NewMemory(nil)
		x.Must(err)
		s := &accountSchedule{
			fixture: x, random: rand.New(rand.NewPCG(seed, 5)), sum: sum, a: a, dropped: make(map[place]bool),
			tap: &settlingStore{Store: store, arrivals: make(map[[16]byte][]arrival), seen: make(map[place]bool)},
		}
		x.Wait(time.Minute) // after the store's birth by any clock
		for i := range 3 {
			s.senders = append(s.senders, nil)
			s.restartSender(i)
		}
		s.restartReceiver()
		for range 60 {
			s.step(attack)
		}
		s.settle()
		s.check()
		x.Must(s.Client.Close(x.Context()))
	})
}

func (s *accountSchedule) restartSender(i int) {
	s.senders[i] = s.senderNamed(fmt.Sprint("s", i), &unreliableBroker{s.Broker.Connect(), s.random, &s.reliable})
}

func (s *accountSchedule) restartReceiver() {
	if s.Client != nil {
		s.Must(s.Client.Close(s.Context()))
	}
	var err error
	s.Client, err = queue.New(s.Broker.Connect(), &queue.Options{
		Keys: s.Ring, ReplayStore: s.tap, Observer: s.a.observer(), Logger: quiet(),
		Crypto: queue.CryptoConfig{Enabled: true, PlaintextPolicy: queue.Reject, TrackReplays: true, MaxMessageAge: testMaxAge},
	})
	s.Must(err)
	s.receiver, err = s.Client.Receiver(s.Context(), orders, &queue.ReceiverOptions{Wait: time.Second, MissingAfter: testMissingAfter})
	s.Must(err)
}

func (s *accountSchedule) step(attack func(*accountSchedule)) {
	switch n := s.random.IntN(20); {
	case n < 7:
		s.post(s.random.IntN(len(s.senders)))
	case n < 14:
		s.handle()
	case n < 15:
		s.restartSender(s.random.IntN(len(s.senders)))
		s.sum["sender restarted"]++
	case n < 16:
		s.restartReceiver()
		s.sum["receiver restarted"]++
	case n < 17:
		s.operate()
	case n < 18 && attack != nil:
		attack(s)
	default:
		s.Wait(time.Duration(s.random.IntN(180)) * time.Second)
	}
}

// post sends some messages, one by one or together.
func (s *accountSchedule) post(i int) {
	var all []*queue.Message
	for range 1 + s.random.IntN(4) {
		s.sent++
		m := &queue.Message{ID: fmt.Sprint(s.sent), Body: []byte("a")}
		if s.random.IntN(8) == 0 {
			m.TTL = 12 * time.Hour // it is in the stream that is not accounted
		}
		all = append(all, m)
	}
	var results []queue.SendResult
	if s.random.IntN(2) == 0 {
		results, _ = s.senders[i].SendBatch(s.Context(), all)
	} else {
		for _, m := range all {
			r, _ := s.senders[i].Send(s.Context(), m)
			results = append(results, r)
		}
	}
	for _, r := range results {
		switch {
		case r.Err == nil:
			s.sum["sent"]++
		case errors.Is(r.Err, queue.ErrUnconfirmed):
			s.sum["unconfirmed"]++
		default:
			s.sum["not sent"]++
		}
	}
}

// handle receives some messages and ends each in some way.
func (s *accountSchedule) handle() {
	for _, d := range s.Some(s.receiver.Receive(s.Context(), 1+s.random.IntN(10))) {
		switch n := s.random.IntN(10); {
		case n < 6:
			s.Must(d.Complete(s.Context()))
			s.sum["completed"]++
		case n < 8:
			s.Must(d.Abandon(s.Context(), time.Duration(s.random.IntN(600))*time.Second))
			s.sum["abandoned"]++
		case n < 9:
			s.Must(d.DeadLetter(s.Context(), queue.Reason{Code: "odd"}))
			s.sum["dead-lettered"]++
		default:
			s.sum["crashed"]++ // the handler never returns
		}
	}
}

// operate redrives or purges the dead letters.
func (s *accountSchedule) operate() {
	d, err := deadletter.Open(s.Context(), s.Client, orders, nil)
	s.Must(err)
	switch s.random.IntN(3) {
	case 0:
		r, err := d.Redrive(s.Context(), &deadletter.RedriveOptions{})
		s.Must(err)
		s.sum["redriven"] += r.Redriven
	case 1:
		r, err := d.Redrive(s.Context(), &deadletter.RedriveOptions{Reseal: true})
		s.Must(err)
		s.sum["resealed"] += r.Resealed
	default:
		n, err := d.Purge(s.Context(), &deadletter.Filter{})
		s.Must(err)
		s.sum["purged"] += n
	}
	s.Must(d.Close(s.Context()))
}

// dropSome lets the broker drop messages that no receiver has seen, with their copies.
func (s *accountSchedule) dropSome() {
	chance := 1 + s.random.IntN(4)
	gone := make(map[place]bool)
	s.Rewrite(orders, func(all []driver.Message) []driver.Message {
		return slices.DeleteFunc(all, func(m driver.Message) bool {
			e, err := envelope.Parse(m.Body)
			s.Must(err)
			p := place{e.Sender, e.Stream, e.Sequence}
			if _, known := gone[p]; !known {
				gone[p] = !s.tap.seen[p] && s.random.IntN(chance) == 0
			}
			if gone[p] {
				s.dropped[p] = true
			}
			return gone[p]
		})
	})
}

// settle lets what is on its way arrive, and the time pass after which the rest is missing.
func (s *accountSchedule) settle() {
	s.reliable = true
	for i := range s.senders {
		_, err := s.senders[i].Send(s.Context(), &queue.Message{Body: []byte("last")})
		s.Must(err)
	}
	for end := time.Now().Add(testMissing + 6*time.Minute); time.Now().Before(end); s.Wait(5 * time.Minute) {
		for _, d := range s.Some(s.receiver.Receive(s.Context(), 100)) {
			s.Must(d.Complete(s.Context()))
		}
	}
	s.a.wait()
}

// check compares what was reported with what was dropped.
func (s *accountSchedule) check() {
	s.sum["dropped"] += len(s.dropped)
	for _, c := range []struct {
		name  string
		after time.Duration
		got   []reported
	}{{"late", testMissingAfter, s.a.late}, {"missing", testMissing, s.a.missing}} {
		found := make(map[place]bool)
		for _, r := range c.got {
			for n := r.First; n <= r.Last; n++ {
				p := place{r.sender, r.stream, n}
				if !s.dropped[p] {
					s.Errorf("%s: %d of %s was not dropped", c.name, n, r.sender)
				}
				if found[p] {
					s.Errorf("%s: %d of %s was reported twice", c.name, n, r.sender)
				}
				found[p] = true
				// The schedule fetches every few minutes only.
				if at, _ := s.tap.settledAt(p); r.at.Sub(at) < c.after || r.at.Sub(at) > c.after+30*time.Minute {
					s.Errorf("%s: %d of %s was reported after %s", c.name, n, r.sender, r.at.Sub(at))
				}
			}
		}
		for p := range s.dropped {
			if _, ok := s.tap.settledAt(p); ok {
				s.sum["expected"]++
				if !found[p] {
					s.Errorf("%s: %d of %s was dropped and not reported", c.name, p.sequence, p.sender)
				}
			}
		}
	}
}
