package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/queue-runtime/queue/tests/bench/internal/measure"
)

// webhookArgs are the arguments of a job of River, which are JSON, as webhooks are.
type webhookArgs struct {
	Body []byte `json:"body"`
	Sent int64  `json:"sent"`
}

// Kind implements river.JobArgs.
func (webhookArgs) Kind() string { return "webhook" }

// riverQueue is River on a file of its own.
type riverQueue struct {
	corpus  *corpus
	db      *sql.DB
	workers int
	serial  atomic.Int64
	poll    time.Duration // 0 means River's default
	handled func(webhookArgs)
}

func openRiver(ctx context.Context, c *corpus, dir string, workers int) (*riverQueue, error) {
	db, err := openDB(filepath.Join(dir, "river.db"))
	if err != nil {
		return nil, err
	}
	migrator, err := rivermigrate.New(riversqlite.New(db), &rivermigrate.Config{Logger: slog.New(slog.DiscardHandler)})
	if err == nil {
		_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("river: %w", err), db.Close())
	}
	return &riverQueue{corpus: c, db: db, workers: workers, poll: time.Millisecond}, nil
}

func (r *riverQueue) close(context.Context) error { return r.db.Close() }

// client returns a client with workers that call handled.
func (r *riverQueue) client() (*river.Client[*sql.Tx], error) {
	workers := river.NewWorkers()
	river.AddWorker(workers, river.WorkFunc(func(_ context.Context, job *river.Job[webhookArgs]) error {
		if r.handled != nil {
			r.handled(job.Args)
		}
		return nil
	}))
	c := &river.Config{
		Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: r.workers}}, Workers: workers,
		Logger: slog.New(slog.DiscardHandler),
	}
	if r.poll > 0 {
		c.FetchCooldown, c.FetchPollInterval = r.poll, r.poll
	}
	return river.NewClient(riversqlite.New(r.db), c)
}

func (r *riverQueue) insert(ctx context.Context, c *river.Client[*sql.Tx]) error {
	_, err := c.Insert(ctx, webhookArgs{Body: r.corpus.body(int(r.serial.Add(1)))}, nil)
	return err
}

// What a turn does, and which part of it counts.
const (
	insertMeanwhile = false // while jobs are worked off
	insertFirst     = true
	timeInserts     = false
	timeWork        = true
)

// ways are the jobs of a turn. A client is started for each turn and stopped after it,
// which no figure contains. It fetches every millisecond, the least that River takes.
func (r *riverQueue) ways(each int) (ways [len(jobs)]measure.Way) {
	turn := func(before, during bool) func(ctx context.Context, n int) (measure.Spent, error) {
		return func(ctx context.Context, n int) (spent measure.Spent, err error) {
			c, err := r.client()
			if err != nil {
				return spent, err
			}
			insert := func(n int) error {
				return together(r.workers, n, func() error { return r.insert(ctx, c) })
			}
			if before {
				s, err := measure.Timed(func() error { return insert(n) })
				if err != nil || !during {
					spent = s
				}
				if err != nil {
					return spent, err
				}
			}
			s, err := r.work(ctx, c, n, func(started func()) error {
				if before {
					return nil
				}
				started()
				return insert(n)
			})
			if during {
				spent = s
			}
			return spent, err
		}
	}
	for i, t := range [len(jobs)]func(context.Context, int) (measure.Spent, error){turn(insertFirst, timeInserts), turn(insertFirst, timeWork), turn(insertMeanwhile, timeWork)} {
		ways[i] = measure.Way{Name: diskRiver, Each: each, Turn: t}
	}
	return ways
}

// work starts the client, calls meanwhile, and waits until n jobs are completed. Time
// counts from the first job's start, or from when meanwhile says.
func (r *riverQueue) work(ctx context.Context, c *river.Client[*sql.Tx], n int, meanwhile func(started func()) error) (spent measure.Spent, err error) {
	var once sync.Once
	started := make(chan struct{})
	start := func() { once.Do(func() { close(started) }) }
	r.handled = func(webhookArgs) { start() }
	events, cancel := c.Subscribe(river.EventKindJobCompleted)
	defer cancel()
	if err := c.Start(ctx); err != nil {
		return spent, err
	}
	defer func() { err = errors.Join(err, c.Stop(ctx)) }()
	failed := make(chan error, 1)
	go func() { failed <- meanwhile(start) }()
	select {
	case <-started:
	case <-ctx.Done():
		return spent, ctx.Err()
	}
	spent, err = measure.Timed(func() error {
		for got := 0; got < n; {
			select {
			case <-events:
				got++
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	return spent, errors.Join(err, <-failed)
}
