package postgresqueue_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/postgres/postgresqueue"
	"github.com/queue-runtime/queue/testbed/postgres"
)

// Benchmarks use a server that waits for the disk.

var durable struct {
	sync.Once
	server *postgres.Server
	err    error
}

func durableServer(t postgres.TB) *postgres.Server {
	t.Helper()
	durable.Do(func() { durable.server, durable.err = postgres.Start(&postgres.Options{Durable: true}) })
	postgres.Require(t, durable.err)
	return durable.server
}

// bodySize is that of a sealed webhook.
const bodySize = 1024

// benchQueue opens a new queue on a server, with a pool for so many workers.
func benchQueue(tb testing.TB, server *postgres.Server, conns int) (*postgresqueue.Broker, driver.Queue) {
	tb.Helper()
	rawURL := fmt.Sprintf("%s?schema=b%d&max_conns=%d", server.URL("postgres", "postgres"), schemas.Add(1), conns)
	b := open(tb, rawURL, &postgresqueue.Options{Default: postgresqueue.QueueOptions{MaxDeliveries: -1, Lock: time.Hour}})
	q, err := b.Open(tb.Context(), "q", nil)
	if err != nil {
		tb.Fatal(err)
	}
	return b, q
}

// fill sends n messages; session names that of each, or is nil.
func fill(tb testing.TB, q driver.Queue, n int, session func(i int) string) {
	tb.Helper()
	body := make([]byte, bodySize)
	for i := 0; i < n; {
		var list []*driver.Message
		for ; i < n && len(list) < postgresqueue.MaxBatch; i++ {
			m := &driver.Message{ID: fmt.Sprint(i), Body: body}
			if session != nil {
				m.SessionID = session(i)
			}
			list = append(list, m)
		}
		send(tb, q, list...)
	}
}

func send(tb testing.TB, q driver.Queue, list ...*driver.Message) {
	tb.Helper()
	for _, r := range q.Send(context.Background(), list) {
		if r.Err != nil {
			tb.Fatal(r.Err)
		}
	}
}

// take receives up to n messages and completes them, and returns how many came.
func take(q driver.Source, n int) (int, error) {
	got, err := q.Receive(context.Background(), n, 10*time.Millisecond)
	if err != nil {
		return 0, err
	}
	list := make([]driver.Settlement, len(got))
	for i, d := range got {
		list[i] = driver.Settlement{Delivery: d, Kind: driver.Complete}
	}
	for _, err := range q.Settle(context.Background(), list) {
		if err != nil {
			return 0, err
		}
	}
	return len(got), nil
}

func BenchmarkSend(b *testing.B) {
	for _, size := range []int{1, 10, 100} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			_, q := benchQueue(b, durableServer(b), 8)
			body := make([]byte, bodySize)
			n := 0
			for b.Loop() {
				var list []*driver.Message
				for range size {
					n++
					list = append(list, &driver.Message{ID: fmt.Sprint(n), Body: body})
				}
				send(b, q, list...)
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}

// BenchmarkReceive claims and completes.
func BenchmarkReceive(b *testing.B) {
	for _, workers := range []int{1, 8} {
		for _, size := range []int{1, 10} {
			b.Run(fmt.Sprintf("workers=%d/batch=%d", workers, size), func(b *testing.B) {
				_, q := benchQueue(b, durableServer(b), workers)
				fill(b, q, b.N*size, nil)
				var left atomic.Int64
				left.Store(int64(b.N * size))
				b.ResetTimer()
				var wg sync.WaitGroup
				for range workers {
					wg.Go(func() {
						for left.Load() > 0 {
							n, err := take(q, size)
							if err != nil {
								b.Error(err)
								return
							}
							left.Add(-int64(n))
						}
					})
				}
				wg.Wait()
				b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "messages/s")
			})
		}
	}
}

// BenchmarkLatency is from a confirmed send of one process to the return of a Receive
// of another.
func BenchmarkLatency(b *testing.B) {
	rawURL := fmt.Sprintf("%s?schema=b%d", durableServer(b).URL("postgres", "postgres"), schemas.Add(1))
	there, err := open(b, rawURL, nil).Open(b.Context(), "q", nil)
	if err != nil {
		b.Fatal(err)
	}
	here, err := open(b, rawURL, nil).Open(b.Context(), "q", nil)
	if err != nil {
		b.Fatal(err)
	}
	type arrival struct {
		at  time.Time
		err error
	}
	arrived := make(chan arrival)
	var total, worst time.Duration
	for b.Loop() {
		go func() {
			got, err := here.Receive(context.Background(), 1, time.Minute)
			a := arrival{time.Now(), err}
			for _, d := range got {
				_ = here.Settle(context.Background(), []driver.Settlement{{Delivery: d, Kind: driver.Complete}})
			}
			arrived <- a
		}()
		send(b, there, &driver.Message{ID: "x", Body: make([]byte, bodySize)})
		sent := time.Now()
		a := <-arrived
		if a.err != nil {
			b.Fatal(a.err)
		}
		d := max(0, a.at.Sub(sent))
		total += d
		worst = max(worst, d)
	}
	b.ReportMetric(float64(total.Microseconds())/float64(b.N), "us-mean")
	b.ReportMetric(float64(worst.Microseconds()), "us-worst")
}

// pages returns how many pages of 8 KiB a table takes.
func pages(tb testing.TB, c *pgx.Conn, table string) (n int64) {
	tb.Helper()
	if err := c.QueryRow(context.Background(), `SELECT pg_relation_size($1::text::regclass) / 8192`, table).Scan(&n); err != nil {
		tb.Fatal(err)
	}
	return n
}

// TestSnapshot holds a snapshot open, as a report or a forgotten transaction does, while
// messages come and go: VACUUM can remove nothing, and the tables stay short all the
// same.
func TestSnapshot(t *testing.T) {
	rawURL, schema := newSchema(t, "&max_conns=4")
	b := open(t, rawURL, nil)
	q, err := b.Open(t.Context(), "q", nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	c, err := pgx.Connect(ctx, postgres.Shared(t).URL("postgres", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(ctx) }()
	if _, err := c.Exec(ctx, `BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1`); err != nil {
		t.Fatal(err)
	}
	look, err := pgx.Connect(ctx, postgres.Shared(t).URL("postgres", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = look.Close(ctx) }()
	n, every, largest := soak(20_000, 2_000_000), soak(2500, 5000), int64(0)
	done := 0
	var first, last time.Duration // for 500 messages
	for done < n {
		begin := time.Now()
		fill(t, q, 500, func(i int) string { return []string{"", fmt.Sprint("s", i%97)}[i%2] })
		for batch := done; done < batch+500; {
			k, err := take(q, 100)
			if err != nil {
				t.Fatal(err)
			}
			done += k
		}
		if done%every == 0 { // more often than the broker's own goroutine in so short a run
			if err := b.Maintain(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if last = time.Since(begin); first == 0 {
			first = last
		}
		largest = max(largest, pages(t, look, schema+".message"), pages(t, look, schema+".session"), pages(t, look, schema+".tally"))
	}
	// Without maintain there are two dead rows of message for each message, 70 a page.
	if limit := int64(128 + 4*every*2/70); largest > limit {
		t.Errorf("after %d messages under a snapshot a table has had %d pages, want at most %d", n, largest, limit)
	}
	t.Logf("%d messages under a snapshot: at most %d pages in a table; the first 500 in %s, the last in %s", n, largest, first, last)
	st, err := q.Stats(ctx)
	if err != nil || st.Ready+st.InFlight+st.Scheduled != 0 {
		t.Errorf("the queue has %+v, %v, want nothing", st, err)
	}
}
