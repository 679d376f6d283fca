package cost

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	queue "github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/keys"
)

// Config says what to measure.
type Config struct {
	// Connect opens a connection to the broker.
	Connect func(context.Context) (driver.Broker, error)
	// NewQueue makes an empty queue that has no other users. It is called twice.
	NewQueue func(ctx context.Context, purpose string) (string, error)
	// Bodies are sent in turn. At least one.
	Bodies [][]byte
	// Messages is how many messages each half of a pair moves, at least 10;
	// Singles how many of them go one by one, for the latency, at least 1.
	Messages, Singles int
	// Rounds is how many pairs there are, at least 3.
	Rounds int
	// Step is called after each half of a pair. Nil means no callback.
	Step func()
}

// Half is what was measured with or without encryption.
type Half struct {
	PerSecond float64 // messages sent, received and completed, in batches
	P50       time.Duration
	P95       time.Duration
	P99       time.Duration // of one message from before its send to after its completion
}

// Result is what was measured.
type Result struct {
	Plain, Sealed Half
	// Overhead is how much longer sealed messages take, of the plain ones' time:
	// the median over the pairs. Low and High bound it with a confidence of at
	// least 95 %, or as near as so few pairs allow (order statistics of the sign
	// test). Negative values are noise.
	Overhead, Low, High float64
	// Added is how much longer a sealed message takes, bounded in the same way.
	Added, AddedLow, AddedHigh time.Duration
	// Seal and Open are of one message alone, on one core.
	Seal, Open time.Duration
	Bytes      int // of a body, on average
}

// Run measures.
func Run(ctx context.Context, c Config) (r Result, err error) {
	if len(c.Bodies) == 0 || c.Messages < 10 || c.Singles < 1 || c.Rounds < 3 {
		return r, errors.New("cost: no bodies, or fewer than 10 messages, 1 single, or 3 rounds")
	}
	if c.Step == nil {
		c.Step = func() {}
	}
	m := &meter{Config: c}
	if err := m.open(ctx); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, m.client.Close(context.WithoutCancel(ctx))) }()
	var paths [2]*path
	for kind := range paths {
		if paths[kind], err = m.path(ctx, kind == 1); err != nil {
			return r, err
		}
		// What is done for the first time is slower: it does not count.
		if _, _, err := paths[kind].half(ctx, 0, min(c.Messages, 50), 1); err != nil {
			return r, err
		}
	}
	var spent [2]time.Duration
	var latencies [2][]time.Duration
	var ratios, added []float64
	for round := range c.Rounds {
		var took [2]time.Duration
		for i := range 2 {
			kind := (i + round) % 2 // the second of a pair finds warmer caches
			t, singles, err := paths[kind].half(ctx, round*c.Messages, c.Messages, c.Singles)
			if err != nil {
				return r, err
			}
			took[kind] = t
			spent[kind] += t
			latencies[kind] = append(latencies[kind], singles...)
			c.Step()
		}
		ratios = append(ratios, float64(took[1])/float64(took[0])-1)
		added = append(added, float64(took[1]-took[0])/float64(c.Messages))
	}
	for kind, h := range []*Half{&r.Plain, &r.Sealed} {
		h.PerSecond = float64(c.Messages*c.Rounds) / spent[kind].Seconds()
		h.P50, h.P95, h.P99 = quantile(latencies[kind], 0.5), quantile(latencies[kind], 0.95), quantile(latencies[kind], 0.99)
	}
	r.Overhead, r.Low, r.High = interval(ratios)
	more, low, high := interval(added)
	r.Added, r.AddedLow, r.AddedHigh = time.Duration(more), time.Duration(low), time.Duration(high)
	total := 0
	for _, b := range c.Bodies {
		total += len(b)
	}
	r.Bytes = total / len(c.Bodies)
	r.Seal, r.Open, err = Crypto(ctx, c.Bodies, 300*time.Millisecond)
	return r, err
}

// Share is the part of a sealed message's time that sealing and opening take.
func (r *Result) Share() float64 {
	return (r.Seal + r.Open).Seconds() * r.Sealed.PerSecond
}

// interval returns the median of a list and the bounds of a confidence interval
// for it: the order statistics k and n+1-k, with the largest k for which
// 2 P(B < k) <= 5 %, where B is binomial with n and 1/2.
func interval(list []float64) (median, low, high float64) {
	slices.Sort(list)
	n := len(list)
	median = (list[(n-1)/2] + list[n/2]) / 2
	k := 0
	term, sum := math.Pow(0.5, float64(n)), 0.0
	for i := 0; i < n/2; i++ {
		sum += term
		if 2*sum > 0.05 {
			break
		}
		k = i + 1
		term *= float64(n-i) / float64(i+1)
	}
	k = max(k, 1)
	return median, list[k-1], list[n-k]
}

// meter is one measurement.
type meter struct {
	Config
	client *queue.Client
	serial int
}

func (m *meter) open(ctx context.Context) error {
	k, err := keys.Generate("cost", nil)
	if err != nil {
		return err
	}
	ring, err := keys.NewRing(k)
	if err != nil {
		return err
	}
	p, err := m.Connect(ctx)
	if err != nil {
		return err
	}
	m.client, err = queue.New(p, &queue.Options{Keys: ring, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return errors.Join(err, p.Close(ctx))
	}
	return nil
}

// path is a queue of its own, plain or sealed, with both of its ends. The meter's
// client closes them.
type path struct {
	m      *meter
	sealed bool
	s      *queue.Sender
	rx     *queue.Receiver
}

func (m *meter) path(ctx context.Context, sealed bool) (*path, error) {
	name, err := m.NewQueue(ctx, "qrt-bench")
	if err != nil {
		return nil, err
	}
	l := &path{m: m, sealed: sealed}
	config := &queue.CryptoConfig{Enabled: sealed, MaxMessageAge: time.Hour}
	if l.s, err = m.client.Sender(ctx, name, &queue.SenderOptions{Crypto: config}); err != nil {
		return nil, err
	}
	l.rx, err = m.client.Receiver(ctx, name, &queue.ReceiverOptions{Crypto: config, Wait: 5 * time.Second})
	return l, err
}

// half moves n messages through the path in batches, from the body first on, and
// then some one by one.
func (l *path) half(ctx context.Context, first, n, singles int) (took time.Duration, latency []time.Duration, err error) {
	if took, err = l.batches(ctx, first, n); err != nil {
		return 0, nil, err
	}
	for i := range singles {
		t := time.Now()
		if _, err := l.s.Send(ctx, l.m.message(first+i)); err != nil {
			return 0, nil, err
		}
		d, err := l.rx.ReceiveOne(ctx)
		if err != nil {
			return 0, nil, err
		}
		if err := d.Complete(ctx); err != nil {
			return 0, nil, err
		}
		latency = append(latency, time.Since(t))
	}
	return took, latency, nil
}

// message makes a message with the i-th body: both halves of a pair move the same
// ones.
func (m *meter) message(i int) *queue.Message {
	m.serial++
	return &queue.Message{
		ID:          fmt.Sprintf("bench-%08d", m.serial),
		ContentType: "application/json",
		Attributes:  map[string]string{"event": "bench"},
		Body:        m.Bodies[i%len(m.Bodies)],
	}
}

// batch is how many messages are sent, and received, in one call; settlers how
// many are completed at once.
const (
	batch    = 50
	settlers = 16
)

func (l *path) batches(ctx context.Context, first, n int) (time.Duration, error) {
	messages := make([]*queue.Message, n)
	for i := range messages {
		messages[i] = l.m.message(first + i)
	}
	begin := time.Now()
	for chunk := range slices.Chunk(messages, batch) {
		if _, err := l.s.SendBatch(ctx, chunk); err != nil {
			return 0, err
		}
	}
	for got := 0; got < n; {
		list, err := l.rx.Receive(ctx, batch)
		if errors.Is(err, queue.ErrNoMessage) {
			return 0, fmt.Errorf("cost: %d of %d messages came back: %w", got, n, err)
		}
		if err != nil {
			return 0, err
		}
		if list[0].Encrypted != l.sealed {
			return 0, errors.New("cost: a message came back in another form than it was sent")
		}
		if err := Complete(ctx, list); err != nil {
			return 0, err
		}
		got += len(list)
	}
	return time.Since(begin), nil
}

// Complete completes deliveries, several at once: a broker that waits for a disk
// then waits once for several.
func Complete(ctx context.Context, list []*queue.Delivery) error {
	errs := make([]error, len(list))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(settlers, len(list)) {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(list) {
					return
				}
				errs[i] = list[i].Complete(ctx)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
