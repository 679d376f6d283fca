package postgres_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/testbed/postgres"
	"github.com/queue-runtime/queue/worker"
)

// flow is a queue whose consumer runs on its own.
type flow interface {
	system
	// consume starts so many workers and returns what stops them. handled gets each body at
	// once, and completed is called when a message is completed in the database.
	consume(ctx context.Context, workers int, handled func(body string), completed func()) (stop func() error, err error)
	send(ctx context.Context, body string) error
}

func (s *ours) send(ctx context.Context, body string) error {
	_, err := s.sender.Send(ctx, &queue.Message{Body: []byte(body)})
	return err
}

func (s *ours) consume(ctx context.Context, workers int, handled func(string), completed func()) (func() error, error) {
	r, err := s.client.Receiver(ctx, "jobs", nil)
	if err != nil {
		return nil, err
	}
	pool, err := worker.New(&worker.Options{Concurrency: workers})
	if err != nil {
		return nil, err
	}
	handler := worker.HandlerFunc(func(_ context.Context, d *queue.Delivery) error { handled(string(d.Body)); return nil })
	if err := pool.Handle(r, handler, nil); err != nil {
		return nil, err
	}
	s.completed.Store(&completed)
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- pool.Run(running) }()
	return func() error {
		stop()
		err := <-ended
		_ = r.Close(context.WithoutCancel(ctx))
		s.completed.Store(nil)
		return err
	}, nil
}

// fetching says how River fetches: cooldown and poll interval, 0 for its defaults.
type fetching struct {
	*theirs
	every time.Duration
}

func (s *theirs) send(ctx context.Context, body string) error {
	_, err := s.client.Insert(ctx, job{body}, nil)
	return err
}

func (s fetching) consume(ctx context.Context, workers int, handled func(string), completed func()) (func() error, error) {
	all := river.NewWorkers()
	river.AddWorker(all, river.WorkFunc(func(_ context.Context, j *river.Job[job]) error { handled(j.Args.Body); return nil }))
	client, err := river.NewClient(riverpgxv5.New(s.pool), &river.Config{
		Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: workers}}, Workers: all,
		FetchCooldown: s.every, FetchPollInterval: s.every, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	events, cancel := client.SubscribeConfig(&river.SubscribeConfig{Kinds: []river.EventKind{river.EventKindJobCompleted}, ChanSize: 10_000})
	go func() {
		for range events {
			completed()
		}
	}()
	if err := client.Start(ctx); err != nil {
		return nil, err
	}
	return func() error {
		err := client.Stop(context.WithoutCancel(ctx))
		cancel()
		return err
	}, nil
}

// BenchmarkLatency is from the return of a send, so from its commit, to the handler: with
// 8 workers, one message at a time with a pause, and 200 a second. River has its defaults,
// and in "river-fast" the least that it takes, 1 ms.
func BenchmarkLatency(b *testing.B) {
	server, pool := start(b)
	defer func() { _ = server.Close() }()
	theirs := newRiver(b, pool)
	flows := []struct {
		name string
		flow
	}{
		{"river", fetching{theirs, 0}}, {"river-fast", fetching{theirs, time.Millisecond}},
		{"plain", newOurs(b, server, "plain")}, {"sealed", newOurs(b, server, "sealed")},
	}
	found := make(map[string][]time.Duration)
	for round := 0; b.Loop(); round++ {
		for i := range flows {
			f := flows[(i+round)%len(flows)]
			for step, pace := range map[string]time.Duration{"idle": 0, "200": 5 * time.Millisecond} {
				list, err := latencies(b.Context(), f.flow, pace)
				if err != nil {
					b.Fatalf("%s, %s: %v", f.name, step, err)
				}
				found[step+"-"+f.name] = append(found[step+"-"+f.name], list...)
			}
		}
	}
	for key, list := range found {
		slices.Sort(list)
		b.ReportMetric(float64(list[len(list)/2].Microseconds())/1e3, key+"-p50-ms")
		b.ReportMetric(float64(list[len(list)*99/100].Microseconds())/1e3, key+"-p99-ms")
	}
	b.ReportMetric(0, "ns/op")
}

// latencies sends messages, one each pace, or each a short pause after the one before was
// handled if pace is 0.
func latencies(ctx context.Context, f flow, pace time.Duration) ([]time.Duration, error) {
	n := 1000
	if pace == 0 {
		n = 50
	}
	handled := make([]time.Time, n)
	var all sync.WaitGroup
	all.Add(n)
	arrived := make(chan struct{}, n)
	stop, err := f.consume(ctx, 8, func(body string) {
		number, _, _ := strings.Cut(body, " ")
		if i, err := strconv.Atoi(number); err == nil && handled[i].IsZero() {
			handled[i] = time.Now()
			arrived <- struct{}{}
			all.Done()
		}
	}, func() {})
	if err != nil {
		return nil, err
	}
	sent := make([]time.Time, n)
	every := pace
	if pace == 0 {
		every = 30 * time.Millisecond
	}
	beat := time.NewTicker(every)
	defer beat.Stop()
	for i := range n {
		<-beat.C
		if err := f.send(ctx, fmt.Sprintf("%d %s", i, body)); err != nil {
			return nil, err
		}
		sent[i] = time.Now()
		if pace == 0 {
			<-arrived
		}
	}
	all.Wait()
	list := make([]time.Duration, n)
	for i := range list {
		list[i] = max(0, handled[i].Sub(sent[i]))
	}
	return list, stop()
}

// BenchmarkSnapshot holds a snapshot for three minutes, so that VACUUM removes nothing,
// while 8 workers handle what is sent: messages a second in the first and the last 30 s,
// and what the tables of the queue grew to.
func BenchmarkSnapshot(b *testing.B) {
	const held, window = 3 * time.Minute, 30 * time.Second
	server, pool := start(b)
	defer func() { _ = server.Close() }()
	for _, f := range []struct {
		name, tables string
		flow
	}{
		{"plain", "plain", newOurs(b, server, "plain")}, {"river", "public", fetching{newRiver(b, pool), time.Millisecond}},
	} {
		b.Run(f.name, func(b *testing.B) {
			for b.Loop() {
				ctx := b.Context()
				holder, err := pgx.Connect(ctx, server.URL("postgres", "postgres"))
				if err != nil {
					b.Fatal(err)
				}
				if _, err := holder.Exec(ctx, `BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1`); err != nil {
					b.Fatal(err)
				}
				first, last, err := flowing(ctx, f.flow, held, window)
				if err != nil {
					b.Fatal(err)
				}
				var mib float64
				if err := pool.QueryRow(ctx, `SELECT sum(pg_total_relation_size(c.oid)) / 1048576.0 FROM pg_class c
					WHERE c.relkind = 'r' AND c.relnamespace = $1::regnamespace`, f.tables).Scan(&mib); err != nil {
					b.Fatal(err)
				}
				_ = holder.Close(ctx)
				b.ReportMetric(first, "first/s")
				b.ReportMetric(last, "last/s")
				b.ReportMetric(mib, "MiB")
				b.ReportMetric(0, "ns/op")
			}
		})
	}
}

// flowing keeps a few hundred messages waiting for a time, and returns how many were
// completed a second in the first window and in the last.
func flowing(ctx context.Context, f flow, held, window time.Duration) (first, last float64, err error) {
	var completed atomic.Int64
	stop, err := f.consume(ctx, 8, func(string) {}, func() { completed.Add(1) })
	if err != nil {
		return 0, 0, err
	}
	begin := time.Now()
	var early, late int64
	beat := time.NewTicker(5 * time.Millisecond)
	defer beat.Stop()
	for sent := int64(0); time.Since(begin) < held; <-beat.C {
		for sent-completed.Load() < 4*batchSize {
			if err := f.insertBatch(ctx, batchSize); err != nil {
				return 0, 0, err
			}
			sent += batchSize
		}
		if time.Since(begin) < window {
			early = completed.Load()
		}
		if time.Since(begin) < held-window {
			late = completed.Load()
		}
	}
	n := completed.Load()
	return float64(early) / window.Seconds(), float64(n-late) / window.Seconds(), stop()
}

// start starts a server that waits for the disk, and a pool for River.
func start(b *testing.B) (*postgres.Server, *pgxpool.Pool) {
	b.Helper()
	server, err := postgres.Start(&postgres.Options{Durable: true})
	postgres.Require(b, err)
	pool, err := pgxpool.New(b.Context(), fmt.Sprintf("%s?pool_max_conns=%d", server.URL("postgres", "postgres"), conns))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(pool.Close)
	return server, pool
}
