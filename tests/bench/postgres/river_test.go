package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/observe"
	"github.com/queue-runtime/queue/postgres/postgresqueue"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/testbed/postgres"
	"github.com/queue-runtime/queue/worker"
)

const (
	single    = 300  // messages that are inserted one by one
	batched   = 5000 // in batches of batchSize
	batchSize = 100
	handled   = 2000 // by so many workers as a step says
	conns     = 16   // of the pool of each
)

// body is what each message carries: text, so that River's JSON has as many bytes.
var body = strings.Repeat("0123456789abcdef", 64)

// system is a queue on the server: River, or this library with and without encryption.
type system interface {
	insert(ctx context.Context) error
	insertBatch(ctx context.Context, n int) error
	// work handles n messages that wait, by so many workers. It returns how long it took
	// until the last was completed in the database.
	work(ctx context.Context, n, workers int) (time.Duration, error)
}

// BenchmarkBesideRiver does the same with River and with this library on one server that
// waits for the disk, in turn, so that what else the machine does meets all. Each iteration
// is a round; the medians are messages a second.
//
// River fetches at most once in FetchCooldown, so that it has its least here, 1 ms.
// "river-fast" inserts by COPY and learns no IDs.
func BenchmarkBesideRiver(b *testing.B) {
	server, pool := start(b)
	defer func() { _ = server.Close() }()
	ctx := b.Context()
	theirs := newRiver(b, pool)
	systems := []struct {
		name, tables string
		system
	}{
		{"river", "river_job", theirs},
		{"plain", "plain.message, plain.content, plain.tally", newOurs(b, server, "plain")},
		{"sealed", "sealed.message, sealed.content, sealed.tally", newOurs(b, server, "sealed")},
	}
	rates := make(map[string][]float64)
	note := func(step, name string, n int, took time.Duration, err error) {
		if err != nil {
			b.Fatalf("%s, %s: %v", name, step, err)
		}
		key := step + "-" + name
		rates[key] = append(rates[key], float64(n)/took.Seconds())
	}
	for round := 0; b.Loop(); round++ {
		for i := range systems {
			s := systems[(i+round)%len(systems)]
			begin := time.Now()
			var err error
			for range single {
				err = errors.Join(err, s.insert(ctx))
			}
			note("insert", s.name, single, time.Since(begin), err)
		}
		for i := range systems {
			s := systems[(i+round)%len(systems)]
			begin := time.Now()
			var err error
			for range batched / batchSize {
				err = errors.Join(err, s.insertBatch(ctx, batchSize))
			}
			note("batch", s.name, batched, time.Since(begin), err)
		}
		begin := time.Now()
		err := theirs.insertFast(ctx, batched)
		note("batch", "river-fast", batched, time.Since(begin), err)
		for _, workers := range []int{1, 8} {
			for i := range systems {
				s := systems[(i+round)%len(systems)]
				// What is waiting is all that is handled: River's workers, and ours, take more
				// than they have handled when the last of a part is done.
				if _, err := pool.Exec(ctx, `TRUNCATE `+s.tables); err != nil {
					b.Fatal(err)
				}
				for range handled / batchSize {
					if err := s.insertBatch(ctx, batchSize); err != nil {
						b.Fatal(err)
					}
				}
				took, err := s.work(ctx, handled, workers)
				note(fmt.Sprint("work", workers), s.name, handled, took, err)
			}
		}
	}
	for key, all := range rates {
		slices.Sort(all)
		b.ReportMetric((all[(len(all)-1)/2]+all[len(all)/2])/2, key+"/s")
	}
	b.ReportMetric(0, "ns/op")
}

// job is what River stores, as JSON.
type job struct {
	Body string `json:"body"`
}

func (job) Kind() string { return "job" }

type jobWorker struct{ river.WorkerDefaults[job] }

func (jobWorker) Work(context.Context, *river.Job[job]) error { return nil }

type theirs struct {
	pool   *pgxpool.Pool
	client *river.Client[pgx.Tx] // that only inserts
}

func newRiver(b *testing.B, pool *pgxpool.Pool) *theirs {
	b.Helper()
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), nil)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := migrator.Migrate(b.Context(), rivermigrate.DirectionUp, nil); err != nil {
		b.Fatal(err)
	}
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	return &theirs{pool, client}
}

func (s *theirs) insert(ctx context.Context) error {
	_, err := s.client.Insert(ctx, job{body}, nil)
	return err
}

func jobs(n int) []river.InsertManyParams {
	list := make([]river.InsertManyParams, n)
	for i := range list {
		list[i].Args = job{body}
	}
	return list
}

func (s *theirs) insertBatch(ctx context.Context, n int) error {
	_, err := s.client.InsertMany(ctx, jobs(n))
	return err
}

func (s *theirs) insertFast(ctx context.Context, n int) error {
	for ; n > 0; n -= batchSize {
		if _, err := s.client.InsertManyFast(ctx, jobs(batchSize)); err != nil {
			return err
		}
	}
	return nil
}

func (s *theirs) work(ctx context.Context, n, workers int) (time.Duration, error) {
	all := river.NewWorkers()
	river.AddWorker(all, jobWorker{})
	client, err := river.NewClient(riverpgxv5.New(s.pool), &river.Config{
		Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: workers}}, Workers: all,
		FetchCooldown: time.Millisecond, FetchPollInterval: time.Millisecond, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return 0, err
	}
	events, cancel := client.SubscribeConfig(&river.SubscribeConfig{Kinds: []river.EventKind{river.EventKindJobCompleted}, ChanSize: 2 * n})
	defer cancel()
	begin := time.Now()
	if err := client.Start(ctx); err != nil {
		return 0, err
	}
	for range n {
		<-events // after the job is completed in the database
	}
	return time.Since(begin), client.Stop(ctx)
}

// ours is this library.
type ours struct {
	client *queue.Client
	sender *queue.Sender
	count  atomic.Pointer[counter]

	completed atomic.Pointer[func()] // of consume
}

// counter closes done when it has counted to zero.
type counter struct {
	left atomic.Int64
	done chan struct{}
}

func newOurs(b *testing.B, server *postgres.Server, schema string) *ours {
	b.Helper()
	broker, err := postgresqueue.Open(b.Context(), fmt.Sprintf("%s?schema=%s&max_conns=%d", server.URL("postgres", "postgres"), schema, conns), nil)
	if err != nil {
		b.Fatal(err)
	}
	s := &ours{}
	o := &queue.Options{}
	if schema == "sealed" {
		key, err := keys.Generate("k", nil)
		if err != nil {
			b.Fatal(err)
		}
		ring, err := keys.NewRing(key)
		if err != nil {
			b.Fatal(err)
		}
		store, err := replay.NewMemory(nil)
		if err != nil {
			b.Fatal(err)
		}
		o = queue.Strict(ring, store)
	}
	o.Logger = slog.New(slog.DiscardHandler)
	o.Observer = observe.Func(func(_ context.Context, _ observe.Source, event any) {
		if _, ok := event.(observe.Handled); !ok { // after the message is completed in the database
			return
		}
		if f := s.completed.Load(); f != nil {
			(*f)()
		} else if c := s.count.Load(); c.left.Add(-1) == 0 {
			close(c.done)
		}
	})
	if s.client, err = queue.New(broker, o); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.client.Close(context.Background()) })
	if s.sender, err = s.client.Sender(b.Context(), "jobs", nil); err != nil {
		b.Fatal(err)
	}
	return s
}

func (s *ours) insert(ctx context.Context) error {
	_, err := s.sender.Send(ctx, &queue.Message{Body: []byte(body)})
	return err
}

func (s *ours) insertBatch(ctx context.Context, n int) error {
	list := make([]*queue.Message, n)
	for i := range list {
		list[i] = &queue.Message{Body: []byte(body)}
	}
	_, err := s.sender.SendBatch(ctx, list)
	return err
}

func (s *ours) work(ctx context.Context, n, workers int) (time.Duration, error) {
	r, err := s.client.Receiver(ctx, "jobs", nil)
	if err != nil {
		return 0, err
	}
	defer func() { _ = r.Close(context.WithoutCancel(ctx)) }()
	pool, err := worker.New(&worker.Options{Concurrency: workers})
	if err != nil {
		return 0, err
	}
	if err := pool.Handle(r, worker.HandlerFunc(func(context.Context, *queue.Delivery) error { return nil }), nil); err != nil {
		return 0, err
	}
	c := &counter{done: make(chan struct{})}
	c.left.Store(int64(n))
	s.count.Store(c)
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	begin := time.Now()
	go func() { ended <- pool.Run(running) }()
	<-c.done
	took := time.Since(begin)
	stop()
	return took, <-ended
}
