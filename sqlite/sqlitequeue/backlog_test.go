package sqlitequeue_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/sqlite/sqlitequeue"
)

// BenchmarkBacklog takes messages from a queue in which 1,000 wait and from one
// in which 1,000,000 do, by turns, so that whatever else the machine does meets
// both. Each that is taken is completed, and replaced by another. The figures are
// medians, in microseconds.
func BenchmarkBacklog(b *testing.B) {
	for _, sessions := range []bool{false, true} {
		b.Run(fmt.Sprintf("sessions=%t", sessions), func(b *testing.B) {
			short, long := newBacklog(b, 1_000, sessions), newBacklog(b, 1_000_000, sessions)
			for b.Loop() {
				short.turn(b)
				long.turn(b)
			}
			short.report(b, "1k")
			long.report(b, "1M")
		})
	}
}

// backlog is a queue that has many messages waiting.
type backlog struct {
	q        driver.Queue
	sessions bool
	sent     int
	receive  []time.Duration // until a message was there, its session taken before
	complete []time.Duration
}

func newBacklog(b *testing.B, size int, sessions bool) *backlog {
	b.Helper()
	broker, err := sqlitequeue.Open(b.Context(), filepath.Join(b.TempDir(), "backlog.db"), &sqlitequeue.Options{Synchronous: sqlitequeue.Normal})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := broker.Close(context.Background()); err != nil {
			b.Error(err)
		}
	})
	q, err := broker.Open(b.Context(), "backlog", nil)
	if err != nil {
		b.Fatal(err)
	}
	l := &backlog{q: q, sessions: sessions}
	for l.sent < size {
		l.send(b, sqlitequeue.MaxBatch)
	}
	return l
}

// send sends n messages, where there are sessions each of another one.
func (l *backlog) send(b *testing.B, n int) {
	b.Helper()
	batch := make([]*driver.Message, n)
	for i := range batch {
		batch[i] = &driver.Message{ID: fmt.Sprint(l.sent), Body: make([]byte, 100)}
		if l.sessions {
			batch[i].SessionID = fmt.Sprint(l.sent % 50_000)
		}
		l.sent++
	}
	for _, r := range l.q.Send(b.Context(), batch) {
		if r.Err != nil {
			b.Fatal(r.Err)
		}
	}
}

func (l *backlog) turn(b *testing.B) {
	b.Helper()
	ctx := b.Context()
	began := time.Now()
	var source driver.Source = l.q
	if l.sessions {
		s, err := l.q.AcceptSession(ctx, "", 0)
		if err != nil {
			b.Fatal(err)
		}
		defer func() {
			if err := s.Close(ctx); err != nil {
				b.Fatal(err)
			}
		}()
		source = s
	}
	got, err := source.Receive(ctx, 1, 0)
	if err != nil || len(got) != 1 {
		b.Fatalf("%d messages, %v", len(got), err)
	}
	l.receive = append(l.receive, time.Since(began))
	began = time.Now()
	if err := source.Settle(ctx, []driver.Settlement{{Delivery: got[0], Kind: driver.Complete}})[0]; err != nil {
		b.Fatal(err)
	}
	l.complete = append(l.complete, time.Since(began))
	l.send(b, 1)
}

func (l *backlog) report(b *testing.B, size string) {
	median := func(all []time.Duration) float64 {
		slices.Sort(all)
		return float64(all[len(all)/2]) / float64(time.Microsecond)
	}
	b.ReportMetric(median(l.receive), "receive-"+size+"-µs")
	b.ReportMetric(median(l.complete), "complete-"+size+"-µs")
}
