package worker_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/worker"
)

// BenchmarkPool handles messages of 1 KiB from memqueue with a Pool and
// with a bare loop that receives in batches of 32 and completes, by turns, so that
// whatever else the machine does meets both. The figures are for one message,
// medians over the turns, and times are those that the process itself used;
// overhead is what the Pool takes beyond the loop.
func BenchmarkPool(b *testing.B) {
	for _, sealed := range []bool{false, true} {
		for _, workers := range []int{1, 8, 64} {
			b.Run(fmt.Sprintf("workers=%d/%s", workers, map[bool]string{false: "plain", true: "sealed"}[sealed]), func(b *testing.B) {
				const turn = 2000 // messages
				q := newBenchQueue(b, sealed)
				ways := [2]func(n int){
					func(n int) { q.bare(b, n) },
					func(n int) { q.process(b, n, workers) },
				}
				var took, allocs [2][]float64
				for i := 0; b.Loop(); i++ {
					for j := range ways {
						way := (i + j) % 2 // each is the first as often
						q.fill(b, turn)
						cpu, objects := measure(func() { ways[way](turn) })
						took[way] = append(took[way], float64(cpu.Nanoseconds())/turn)
						allocs[way] = append(allocs[way], float64(objects)/turn)
					}
				}
				b.ReportMetric(0, "ns/op") // of filling, too
				for name, all := range map[string][2][]float64{"ns": took, "allocs": allocs} {
					over := make([]float64, len(all[0]))
					for i := range over {
						over[i] = all[1][i] - all[0][i]
					}
					b.ReportMetric(median(all[0]), "bare-"+name)
					b.ReportMetric(median(all[1]), "pool-"+name)
					b.ReportMetric(median(over), "overhead-"+name)
				}
			})
		}
	}
}

// measure returns how much of the processor f takes, and how often it allocates.
func measure(f func()) (time.Duration, uint64) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := cpuTime()
	f()
	took := cpuTime() - began
	runtime.ReadMemStats(&after)
	return took, after.Mallocs - before.Mallocs
}

func median(all []float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}

// benchQueue is a queue for a benchmark.
type benchQueue struct {
	sender   *queue.Sender
	receiver *queue.Receiver
}

func newBenchQueue(b *testing.B, sealed bool) *benchQueue {
	b.Helper()
	c, err := queue.New(memqueue.New(nil), &queue.Options{Keys: newRing(b, "k1"), Logger: quiet(), Crypto: queue.CryptoConfig{Enabled: sealed}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close(context.Background()) })
	q := &benchQueue{}
	if q.sender, err = c.Sender(b.Context(), orders, nil); err != nil {
		b.Fatal(err)
	}
	if q.receiver, err = c.Receiver(b.Context(), orders, nil); err != nil {
		b.Fatal(err)
	}
	return q
}

// fill sends n messages.
func (q *benchQueue) fill(b *testing.B, n int) {
	b.Helper()
	body := make([]byte, 1024)
	for left := n; left > 0; {
		batch := make([]*queue.Message, min(left, 100))
		for i := range batch {
			batch[i] = &queue.Message{Body: body}
		}
		if _, err := q.sender.SendBatch(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
		left -= len(batch)
	}
}

// bare handles n messages in a loop.
func (q *benchQueue) bare(b *testing.B, n int) {
	b.Helper()
	for done := 0; done < n; {
		batch, err := q.receiver.Receive(b.Context(), 32)
		if err != nil {
			b.Fatal(err)
		}
		for _, d := range batch {
			if err := d.Complete(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		done += len(batch)
	}
}

// process handles n messages with a Pool.
func (q *benchQueue) process(b *testing.B, n, workers int) {
	b.Helper()
	p, err := worker.New(&worker.Options{Concurrency: workers})
	if err != nil {
		b.Fatal(err)
	}
	var done atomic.Int64
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	h := worker.HandlerFunc(func(context.Context, *queue.Delivery) error {
		if done.Add(1) == int64(n) {
			cancel()
		}
		return nil
	})
	if err := p.Handle(q.receiver, h, nil); err != nil {
		b.Fatal(err)
	}
	if err := p.Run(ctx); err != nil {
		b.Fatal(err)
	}
}
