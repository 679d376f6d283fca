package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/queue-runtime/queue/backoff"
	"maragu.dev/goqite"
	goqitejobs "maragu.dev/goqite/jobs"

	queue "github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/sqlite/sqlitequeue"
	"github.com/queue-runtime/queue/tests/bench/internal/measure"
	"github.com/queue-runtime/queue/worker"
)

// idleFigures are what receivers cost while there is nothing to receive, in a second: time of
// processors, and how often a thread of the process went to sleep and was woken.
type idleFigures struct {
	name      string
	receivers int
	cpu       time.Duration
	wakeUps   float64
}

// idling starts that many receivers in one process, on one file, each with a queue of its own.
type idling struct {
	name      string
	receivers []int
	start     func(ctx context.Context, c *corpus, dir string, receivers int) (stop func() error, err error)
}

const idleSQLite = "queue, SQLite, worker.Pool"

// idleSystems: a thousand runners of goqite that poll each millisecond are more than a machine
// can do.
var idleSystems = []idling{
	{idleSQLite, []int{1, 100, 1_000}, idleOurs},
	{"goqite jobs, default (100 ms)", []int{1, 100, 1_000}, idleGoqite(0)},
	{"goqite jobs, polling every 1 ms", []int{1}, idleGoqite(time.Millisecond)},
}

func idleOurs(ctx context.Context, c *corpus, dir string, receivers int) (func() error, error) {
	b, err := sqlitequeue.Open(ctx, filepath.Join(dir, "queue.db"), nil)
	if err != nil {
		return nil, err
	}
	w, err := openOurs(ctx, c, b, protection{})
	if err != nil {
		return nil, err
	}
	p, err := worker.New(&worker.Options{Concurrency: receivers})
	for i := 0; i < receivers && err == nil; i++ {
		var r *queue.Receiver
		if r, err = w.client.Receiver(ctx, fmt.Sprint("idle", i), nil); err == nil {
			err = p.Handle(r, worker.HandlerFunc(func(context.Context, *queue.Delivery) error { return nil }), nil)
		}
	}
	if err != nil {
		return nil, errors.Join(err, w.close(ctx))
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	return func() error {
		cancel()
		return errors.Join(<-done, w.close(context.WithoutCancel(ctx)))
	}, nil
}

func idleGoqite(poll time.Duration) func(context.Context, *corpus, string, int) (func() error, error) {
	return func(ctx context.Context, c *corpus, dir string, receivers int) (func() error, error) {
		g, err := newGoqite(ctx, c, dir)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithCancel(ctx)
		at := &goqiteAtWork{goqiteQueue: g, cancel: cancel}
		for i := range receivers {
			q := goqite.New(goqite.NewOpts{DB: g.db, Name: fmt.Sprint("idle", i)})
			r := goqitejobs.NewRunner(goqitejobs.NewRunnerOpts{Limit: 1, PollInterval: poll, Queue: q})
			at.done.Go(func() { r.Start(ctx) })
		}
		return at.stop, nil
	}
}

// Receivers are left alone for idleSettle before they are watched for idleSpan.
const (
	idleSettle = time.Second
	idleSpan   = 2 * time.Second
)

func measureIdle(ctx context.Context, c *corpus, dir string, settle, span time.Duration) (all []idleFigures, err error) {
	for _, s := range idleSystems {
		for _, n := range s.receivers {
			folder, err := newFolder(dir, fmt.Sprintf("idle-%s-%d", s.name, n))
			if err != nil {
				return nil, err
			}
			f, err := s.measure(ctx, c, folder, n, settle, span)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
			all = append(all, f)
		}
	}
	return all, nil
}

func (s *idling) measure(ctx context.Context, c *corpus, dir string, receivers int, settle, span time.Duration) (f idleFigures, err error) {
	stop, err := s.start(ctx, c, dir, receivers)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if err := pause(ctx, settle); err != nil {
		return f, err
	}
	before := measure.Switches()
	spent, err := measure.Timed(func() error { return pause(ctx, span) })
	seconds := spent.Wall.Seconds()
	return idleFigures{
		name: s.name, receivers: receivers,
		cpu: time.Duration(float64(spent.CPU) / seconds), wakeUps: float64(measure.Switches()-before) / seconds,
	}, err
}

// pause waits.
func pause(ctx context.Context, d time.Duration) error {
	if !backoff.Sleep(ctx, d) {
		return ctx.Err()
	}
	return nil
}
