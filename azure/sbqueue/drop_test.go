package sbqueue_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/testbed/sbemulator"
	"github.com/queue-runtime/queue/worker"
)

// The connection is cut 200 times, at random, while 8 workers handle 20,000
// sealed messages that are sent at the same time. It runs alone: it counts
// goroutines.
func TestDrops(t *testing.T) {
	t.Run("all", func(t *testing.T) {
		for name, sessions := range map[string]int{"queue": 0, "sessions": 50} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				drops(t, 20_000/scale, 200/scale, 8, sessions)
			})
		}
	})
	var left []string
	if !eventually(time.Minute, func() bool { left = goroutinesOf(); return len(left) == 0 }) {
		t.Errorf("%d goroutines are left, the first:\n%s", len(left), left[0])
	}
}

// ledger is what the handlers saw.
type ledger struct {
	mu       sync.Mutex // guards what follows
	seen     []int      // deliveries, by message
	handled  []bool
	ready    []int // by session: how many of its messages are handled without a gap
	distinct int
	faults   []string
}

func (l *ledger) fault(format string, args ...any) {
	if len(l.faults) < 10 {
		l.faults = append(l.faults, fmt.Sprintf(format, args...))
	}
}

func drops(t *testing.T, messages, cuts, workers, sessions int) {
	seed := rand.Uint64()
	t.Logf("seed %#x", seed)
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // G404: the choice of a fault

	n := start(t, nil, sbemulator.QueueOptions{
		RequiresSession: sessions > 0, LockDuration: 10 * time.Second, MaxDeliveryCount: 1000, DuplicateDetectionWindow: time.Hour,
	})
	const path = "q"
	var most, calls atomic.Int64
	k, err := keys.Generate("k-1", nil)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := keys.NewRing(k)
	if err != nil {
		t.Fatal(err)
	}
	c, err := queue.New(timed{n.broker(t), &most, &calls}, &queue.Options{
		Crypto: queue.CryptoConfig{Enabled: true, PlaintextPolicy: queue.Reject, MaxMessageAge: time.Hour},
		Keys:   ring, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Receiver(t.Context(), path, &queue.ReceiverOptions{Wait: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.Sender(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := worker.New(&worker.Options{Concurrency: workers})
	if err != nil {
		t.Fatal(err)
	}

	l := &ledger{seen: make([]int, messages), handled: make([]bool, messages), ready: make([]int, max(sessions, 1))}
	all := make(chan struct{})
	begin := time.Now()
	handler := worker.HandlerFunc(func(_ context.Context, d *queue.Delivery) error {
		var i int
		if _, err := fmt.Sscanf(d.ID, "m-%d", &i); err != nil || i < 0 || i >= messages {
			return worker.Permanent(fmt.Errorf("message %q", d.ID), "unknown")
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.seen[i]++
		if sessions > 0 {
			of, place := i%sessions, i/sessions
			if place > l.ready[of] {
				l.fault("message %d of session %d was delivered when %d were handled", place, of, l.ready[of])
			}
			if place == l.ready[of] {
				l.ready[of]++
			}
		}
		if l.handled[i] {
			return nil
		}
		l.handled[i] = true
		if l.distinct++; l.distinct == messages {
			close(all)
		}
		return nil
	})
	if err := p.Handle(r, handler, &worker.HandleOptions{SessionIdle: 200 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Minute)
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := p.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	wg.Go(func() { sendAll(t, ctx, s, messages, sessions) })

	// The cuts are spread over the messages by where the handlers are.
	due := make([]int, cuts)
	for i := range due {
		due[i] = random.IntN(messages * 19 / 20)
	}
	slices.Sort(due)
	done := 0
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for running := true; running; {
		select {
		case <-all:
			running = false
		case <-ctx.Done():
			running = false
			t.Errorf("the time is over")
		case <-tick.C:
			l.mu.Lock()
			at := l.distinct
			l.mu.Unlock()
			if done < cuts && at >= due[done] {
				cutOnce(t, n, random)
				done++
			}
		}
	}
	handledIn := time.Since(begin)
	// What was handled and could not be settled comes again.
	empty := eventually(5*time.Minute, func() bool {
		st, err := n.Stats(path)
		return err == nil && st.Active+st.Locked == 0
	})
	stop()
	wg.Wait()
	if err := c.Close(context.Background()); err != nil {
		t.Errorf("Close: %v", err)
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	again := 0
	for i, times := range l.seen {
		if times == 0 {
			l.fault("message %d was lost", i)
		}
		again += max(times-1, 0)
	}
	t.Logf("%d messages, %d cuts, %d handled again; all handled after %s, empty after %s; %d settlements, the longest %s",
		messages, done, again, handledIn.Round(time.Millisecond), time.Since(begin).Round(time.Millisecond), calls.Load(), time.Duration(most.Load()).Round(time.Millisecond))
	for _, f := range l.faults {
		t.Error(f)
	}
	if !empty {
		st, err := n.Stats(path)
		t.Errorf("the queue is not empty: %+v, %v", st, err)
	}
	if done != cuts {
		t.Errorf("the connection was cut %d times, not %d", done, cuts)
	}
	if dead, err := n.Stats(path + "/$DeadLetterQueue"); err != nil || dead.Active != 0 {
		t.Errorf("dead letters: %+v, %v", dead, err)
	}
	if most := time.Duration(most.Load()); most > time.Minute { // on this machine; TestSettleBounded has the bound itself
		t.Errorf("a settlement took %s", most)
	}
	if !eventually(time.Minute, func() bool { return n.Connections() == 0 }) {
		t.Errorf("%d connections are left", n.Connections())
	}
}

// cutOnce cuts the connection in one of the ways that a network has.
func cutOnce(t *testing.T, n *namespace, random *rand.Rand) {
	f := sbemulator.Fault{On: sbemulator.OnSettle, Action: sbemulator.Drop, Times: 1}
	switch random.IntN(6) {
	case 0: // the answer to a settlement is lost
		f.Action = sbemulator.DropAfter
	case 1: // a settlement
	case 2: // a message on its way
		f.On = sbemulator.OnDeliver
	case 3: // a message on its way in, or its confirmation
		f.On, f.Action = sbemulator.OnSend, sbemulator.DropAfter
	default: // between operations
		n.DropConnections()
		return
	}
	// If nothing of the kind comes soon, cut the connection all the same.
	i, err := n.Inject(f)
	if err != nil {
		t.Error(err)
		return
	}
	if !eventually(50*time.Millisecond, func() bool { return i.Hits() > 0 }) {
		i.Remove()
		if i.Hits() == 0 {
			n.DropConnections()
		}
	}
}

// sendAll sends the messages, in the order of each session, and again what
// failed: the broker drops repeats.
func sendAll(t *testing.T, ctx context.Context, s *queue.Sender, messages, sessions int) {
	const batch = 100
	for first := 0; first < messages; first += batch {
		var sleep []*queue.Message
		for i := first; i < min(first+batch, messages); i++ {
			m := &queue.Message{ID: fmt.Sprintf("m-%d", i), Body: fmt.Appendf(nil, `{"number":%d}`, i)}
			if sessions > 0 {
				m.SessionID = fmt.Sprintf("s-%d", i%sessions)
			}
			sleep = append(sleep, m)
		}
		for len(sleep) > 0 {
			results, err := s.SendBatch(ctx, sleep)
			if ctx.Err() != nil {
				t.Errorf("sending: %v", ctx.Err())
				return
			}
			if results == nil {
				t.Errorf("sending: %v", err)
				return
			}
			var failed []*queue.Message
			for i, r := range results {
				if r.Err != nil {
					failed = append(failed, sleep[i])
				}
			}
			sleep = failed
		}
	}
}

var _ driver.Broker = timed{}
