package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/queue-runtime/queue/sqlite/sqlitequeue"
	"github.com/queue-runtime/queue/sqlite/sqlitereplay"
	"github.com/queue-runtime/queue/tests/bench/internal/measure"
)

// durable is a queue that confirms a message once the disk has it. Its methods are those
// of one worker, and safe for concurrent use.
type durable interface {
	send(ctx context.Context) error
	handle(ctx context.Context) error // receive a message and complete it
	close(ctx context.Context) error
}

const (
	diskOurs   = "queue, SQLite"
	diskSealed = "queue, SQLite, sealed"
	diskStrict = "queue, SQLite, Strict with sqlitereplay"
	diskGoqite = "goqite"
	diskNATS   = "JetStream file, SyncAlways"
	diskRiver  = "River on SQLite"
)

// diskTurn is how many messages a turn moves; River takes ten times as long.
const (
	diskTurn  = 80
	riverTurn = 16
)

// jobs are what is measured, each by its own figures.
var jobs = [...]string{"insert", "claim + complete", "all three"}

// diskFigures are those of one number of workers, by job.
type diskFigures struct {
	workers int
	jobs    [len(jobs)][]measure.Figures
}

// openDurable opens the systems by name, each in a folder of its own.
var openDurable = map[string]func(ctx context.Context, c *corpus, dir string) (durable, error){
	diskOurs:   openSQLite(protection{}, untracked),
	diskSealed: openSQLite(protection{sealed: true}, untracked),
	diskStrict: openSQLite(protection{sealed: true}, tracked),
	diskGoqite: openGoqite,
	diskNATS:   openJetStream,
}

// Whether replays are tracked.
const (
	untracked = false
	tracked   = true
)

// openSQLite opens this library over a file, with a replay store in a file of its own if
// it tracks replays. Both are at synchronous FULL.
func openSQLite(p protection, track bool) func(ctx context.Context, c *corpus, dir string) (durable, error) {
	return func(ctx context.Context, c *corpus, dir string) (durable, error) {
		w := &sqliteOurs{}
		if track {
			store, err := sqlitereplay.Open(ctx, filepath.Join(dir, "replay.db"), nil)
			if err != nil {
				return nil, err
			}
			w.store, p.store = store, store
		}
		b, err := sqlitequeue.Open(ctx, filepath.Join(dir, "queue.db"), nil)
		if err == nil {
			w.ours, err = openOurs(ctx, c, b, p)
		}
		if err != nil && w.store != nil {
			err = errors.Join(err, w.store.Close(ctx))
		}
		return w, err
	}
}

// sqliteOurs is ours with a replay store to close.
type sqliteOurs struct {
	*ours
	store *sqlitereplay.Store
}

func (w *sqliteOurs) close(ctx context.Context) error {
	err := w.ours.close(ctx)
	if w.store != nil {
		err = errors.Join(err, w.store.Close(ctx))
	}
	return err
}

// durableWays are the jobs of a system for that many workers.
func durableWays(name string, d durable, workers, each int) (ways [len(jobs)]measure.Way) {
	send := func(ctx context.Context, n int) error {
		return together(workers, n, func() error { return d.send(ctx) })
	}
	handle := func(ctx context.Context, n int) error {
		return together(workers, n, func() error { return d.handle(ctx) })
	}
	turns := [len(jobs)]func(ctx context.Context, n int) (measure.Spent, error){
		func(ctx context.Context, n int) (measure.Spent, error) {
			spent, err := measure.Timed(func() error { return send(ctx, n) })
			return spent, errors.Join(err, handle(ctx, n))
		},
		func(ctx context.Context, n int) (measure.Spent, error) {
			if err := send(ctx, n); err != nil {
				return measure.Spent{}, err
			}
			return measure.Timed(func() error { return handle(ctx, n) })
		},
		func(ctx context.Context, n int) (measure.Spent, error) {
			return measure.Timed(func() error {
				return together(workers, n, func() error { return errors.Join(d.send(ctx), d.handle(ctx)) })
			})
		},
	}
	for i, turn := range turns {
		ways[i] = measure.Way{Name: name, Each: each, Turn: turn}
	}
	return ways
}

// diskWays opens a system in a folder and returns its jobs. The returned function ends what
// they use.
func diskWays(ctx context.Context, c *corpus, dir, name string, workers int) (ways [len(jobs)]measure.Way, end func() error, err error) {
	if name == diskRiver {
		r, err := openRiver(ctx, c, dir, workers)
		if err != nil {
			return ways, nil, err
		}
		return r.ways(riverTurn), func() error { return r.close(ctx) }, nil
	}
	d, err := openDurable[name](ctx, c, dir)
	if err != nil {
		return ways, nil, fmt.Errorf("%s: %w", name, err)
	}
	return durableWays(name, d, workers, diskTurn), func() error { return d.close(ctx) }, nil
}

// measureDisk measures the named systems with that many workers. All jobs of all systems
// take turns.
func measureDisk(ctx context.Context, c *corpus, dir string, names []string, workers, rounds int) (f diskFigures, err error) {
	f.workers = workers
	var ways []measure.Way
	var ends []func() error
	defer func() {
		for _, end := range ends {
			err = errors.Join(err, end())
		}
	}()
	for _, name := range names {
		folder, err := newFolder(dir, fmt.Sprintf("%s-%d", name, workers))
		if err != nil {
			return f, err
		}
		system, end, err := diskWays(ctx, c, folder, name, workers)
		if err != nil {
			return f, err
		}
		ends = append(ends, end)
		ways = append(ways, system[:]...)
	}
	all, err := measure.Interleaved(ctx, measure.Options{Rounds: rounds, Collect: true}, ways)
	for i := range all {
		f.jobs[i%len(jobs)] = append(f.jobs[i%len(jobs)], all[i])
	}
	return f, err
}
