package cli

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/queue-runtime/queue/cmd/qrt/internal/brokers"
	"github.com/queue-runtime/queue/cmd/qrt/internal/cost"
	"github.com/queue-runtime/queue/cmd/qrt/internal/display"
	"github.com/queue-runtime/queue/cmd/qrt/internal/webhook"
	"github.com/queue-runtime/queue/drivertest"
)

// benchReport is the output of bench --json. Times are milliseconds unless their
// name says otherwise.
type benchReport struct {
	Broker    string    `json:"broker"`
	Rounds    int       `json:"rounds"`
	Messages  int       `json:"messages"` // of a half round
	Bytes     int       `json:"bytes"`    // of a body, on average
	Plaintext benchHalf `json:"plaintext"`
	Encrypted benchHalf `json:"encrypted"`
	// Overhead of encryption in percent of the time: the median over the pairs,
	// and a confidence interval of 95 % for it.
	Overhead     float64 `json:"overhead_percent"`
	OverheadLow  float64 `json:"overhead_low_percent"`
	OverheadHigh float64 `json:"overhead_high_percent"`
	// Noise is half the width of that interval: an overhead that is smaller
	// cannot be told from none by this run.
	Noise float64 `json:"noise_percent"`
	// What a message takes more when it is sealed, bounded in the same way.
	Added     float64 `json:"added_us"`
	AddedLow  float64 `json:"added_low_us"`
	AddedHigh float64 `json:"added_high_us"`
	SealNS    int64   `json:"seal_ns"`
	OpenNS    int64   `json:"open_ns"`
	Share     float64 `json:"crypto_percent"` // of an encrypted message's time
}

type benchHalf struct {
	PerSecond float64 `json:"per_s"`
	P50       float64 `json:"p50_ms"`
	P95       float64 `json:"p95_ms"`
	P99       float64 `json:"p99_ms"`
}

func (a *app) benchCommand() *cobra.Command {
	var payloads, queue string
	var size, messages, rounds int
	var yes bool
	c := &cobra.Command{
		Use:   "bench",
		Short: "Measure what encryption costs on a broker",
		Long: `Bench moves the same bodies through the broker plain and sealed, in pairs that take
turns, so that both meet the same machine. It reports throughput (batches of 50),
latency (one by one), and the overhead with a confidence interval; more and
shorter pairs (--rounds, --messages) make that narrower.

It creates queues of its own in a temporary SQLite file, or on the broker that
--broker names (emulator://servicebus and emulator://sqs start one). If it cannot
create queues there, name an empty queue that nothing else uses with --queue. On
AWS it creates and deletes queues and asks for --yes. In a file it leaves them, and
asks for --yes if the file has other queues.`,
		Example: example(`
			qrt bench
			qrt bench --payloads testdata/github --rounds 200
			qrt bench --broker sqlite:///mnt/disk/bench.db --size 1024 --json`),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case messages < 10:
				return usagef("--messages must be at least 10")
			case rounds < 3:
				return usagef("--rounds must be at least 3")
			case size < 0:
				return usagef("--size is negative")
			}
			bodies, err := benchBodies(payloads, size)
			if err != nil {
				return err
			}
			return a.bench(cmd.Context(), queue, bodies, messages, rounds, yes)
		},
	}
	c.Flags().StringVar(&payloads, "payloads", "", "`folder` of bodies, .json files (default: made up, 7 to 30 KB)")
	c.Flags().IntVar(&size, "size", 0, "bodies of this many bytes")
	c.Flags().IntVar(&messages, "messages", 100, "messages of each half of a pair")
	c.Flags().IntVar(&rounds, "rounds", 30, "how many pairs")
	c.Flags().StringVar(&queue, "queue", "", "use this empty `queue` instead of creating queues")
	c.Flags().BoolVar(&yes, "yes", false, "create queues in an account of a cloud, or in a file that has queues")
	c.MarkFlagsMutuallyExclusive("payloads", "size")
	must(c.MarkFlagDirname("payloads"))
	return c
}

func benchBodies(payloads string, size int) ([][]byte, error) {
	if size > 0 {
		return [][]byte{bytes.Repeat([]byte("q"), size)}, nil
	}
	events := webhook.Generate(200, 1)
	if payloads != "" {
		var err error
		if events, err = webhook.Load(payloads); err != nil {
			return nil, usagef("--payloads: %w", err)
		}
	}
	bodies := make([][]byte, len(events))
	for i := range events {
		bodies[i] = events[i].Body
	}
	return bodies, nil
}

func (a *app) bench(ctx context.Context, queue string, bodies [][]byte, messages, rounds int, yes bool) (err error) {
	var b *brokers.Broker
	if queue != "" {
		b, err = brokers.OpenOn(ctx, a.settings.broker.value, queue)
	} else {
		b, err = a.testBroker(ctx, yes)
	}
	if err != nil {
		return err
	}
	defer func() {
		if cerr := b.Close(); err == nil {
			err = cerr
		}
	}()
	bar := a.errors.Bar("measuring", 2*rounds)
	if a.settings.json {
		bar.Done()
	}
	defer bar.Done()
	r, err := cost.Run(ctx, cost.Config{
		Connect: b.Connect,
		NewQueue: func(ctx context.Context, purpose string) (string, error) {
			return b.NewQueue(ctx, purpose, drivertest.QueueSpec{})
		},
		Bodies:   bodies,
		Messages: messages,
		Singles:  max(1, messages/4),
		Rounds:   rounds,
		Step:     func() { bar.Add(1) },
	})
	bar.Done()
	if err != nil {
		return err
	}
	report := newBenchReport(b.Title, messages, rounds, &r)
	a.print(report, func(s *display.Screen) { report.show(s) })
	return nil
}

// noticeable is the noise, in percent, from which on a person is told of it: what
// is of interest is whether encryption costs a percent.
const noticeable = 1

func newBenchReport(title string, messages, rounds int, r *cost.Result) *benchReport {
	half := func(h cost.Half) benchHalf {
		ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
		return benchHalf{h.PerSecond, ms(h.P50), ms(h.P95), ms(h.P99)}
	}
	us := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
	return &benchReport{
		Broker: title, Rounds: rounds, Messages: messages, Bytes: r.Bytes,
		Plaintext: half(r.Plain), Encrypted: half(r.Sealed),
		Overhead: 100 * r.Overhead, OverheadLow: 100 * r.Low, OverheadHigh: 100 * r.High, Noise: 50 * (r.High - r.Low),
		Added: us(r.Added), AddedLow: us(r.AddedLow), AddedHigh: us(r.AddedHigh),
		SealNS: r.Seal.Nanoseconds(), OpenNS: r.Open.Nanoseconds(), Share: 100 * r.Share(),
	}
}

func (r *benchReport) show(s *display.Screen) {
	s.Printf("%s  %s\n", s.Bold("qrt bench"), s.Dim(fmt.Sprintf("%s; %d pairs of %s messages, bodies of %s on average",
		r.Broker, r.Rounds, display.Count(r.Messages), display.Bytes(r.Bytes))))
	s.Println()
	row := func(name string, h benchHalf) []string {
		ms := func(v float64) string { return display.Duration(time.Duration(v * float64(time.Millisecond))) }
		return []string{name, display.Count(int(h.PerSecond)), ms(h.P50), ms(h.P95), ms(h.P99)}
	}
	s.Table(display.Columns("", ">messages/s", ">p50", ">p95", ">p99"), [][]string{row("plaintext", r.Plaintext), row("encrypted", r.Encrypted)})
	s.Println()
	s.Printf("  overhead in throughput  %s  %s\n", s.Bold(fmt.Sprintf("%+.1f %%", r.Overhead)),
		s.Dim(fmt.Sprintf("median of %d pairs; between %+.1f %% and %+.1f %% with 95 %% confidence", r.Rounds, r.OverheadLow, r.OverheadHigh)))
	us := func(v float64) string { return display.Duration(time.Duration(v * float64(time.Microsecond))) }
	s.Printf("  a message takes         %s  %s\n", s.Bold(us(r.Added)+" more"),
		s.Dim(fmt.Sprintf("between %s and %s, with 95 %% confidence", us(r.AddedLow), us(r.AddedHigh))))
	if r.Noise > noticeable {
		s.Printf("  noise                   %s  %s\n", s.Warn(fmt.Sprintf("±%.1f %%", r.Noise)),
			s.Dim("what is less than that cannot be told from none; a machine with less to do, or more --rounds, can"))
	}
	s.Printf("  crypto alone            %s  %s\n", s.Bold(fmt.Sprintf("%.1f %%", r.Share)),
		s.Dim(fmt.Sprintf("of a message's time: %s to seal, %s to open", display.Duration(time.Duration(r.SealNS)), display.Duration(time.Duration(r.OpenNS)))))
}
