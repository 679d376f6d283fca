package main

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/riverqueue/river"
	"maragu.dev/goqite"
	goqitejobs "maragu.dev/goqite/jobs"

	queue "github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/sqlite/sqlitequeue"
	"github.com/queue-runtime/queue/tests/bench/internal/measure"
	"github.com/queue-runtime/queue/worker"
)

// A pace is how often messages are sent while latency is measured.
type pace struct {
	name  string
	every time.Duration
	sends int // a turn
}

// paces: with the first the handlers are idle when a message comes.
var paces = [...]pace{{"idle", 20 * time.Millisecond, 25}, {"loaded, 400 a second", 2500 * time.Microsecond, 200}}

// handling is a system at work: it calls handled with the number of each message.
type handling interface {
	send(ctx context.Context, number int) error
	stop() error
}

// handler is a way to send messages to handlers in this process.
type handler struct {
	name  string
	start func(ctx context.Context, dir string, handled func(number int)) (handling, error)
	apart string // the sender, by its name in senders, if it has a process of its own
}

const (
	latencyMemory = "queue, memqueue, worker.Pool"
	latencySQLite = "queue, SQLite, worker.Pool"

	goqiteDefault = "goqite jobs, default (100 ms)"
	goqiteQuick   = "goqite jobs, polling every 1 ms"
	inAnother     = ", sent by another process"
)

func latencyHandlers(c *corpus) []handler {
	pool := func(open func(ctx context.Context, dir string) (driver.Broker, error)) func(context.Context, string, func(int)) (handling, error) {
		return func(ctx context.Context, dir string, handled func(int)) (handling, error) {
			b, err := open(ctx, dir)
			if err != nil {
				return nil, err
			}
			return startPool(ctx, c, b, handled)
		}
	}
	file := pool(func(ctx context.Context, dir string) (driver.Broker, error) {
		return sqlitequeue.Open(ctx, filepath.Join(dir, "queue.db"), nil)
	})
	return []handler{
		{latencyMemory, pool(func(context.Context, string) (driver.Broker, error) { return memqueue.New(nil).Connect(), nil }), ""},
		{latencySQLite, file, ""},
		{latencySQLite + inAnother, file, "sqlitequeue"},
		{goqiteDefault, startGoqite(c, 0), ""},
		{goqiteDefault + inAnother, startGoqite(c, 0), "goqite"},
		{goqiteQuick, startGoqite(c, time.Millisecond), ""},
		{goqiteQuick + inAnother, startGoqite(c, time.Millisecond), "goqite"},
		{"River, default", startRiver(c, 0), ""},
		{"River, polling every 1 ms", startRiver(c, time.Millisecond), ""},
	}
}

// numbered is a body that begins with a message's number.
func numbered(c *corpus, number int) []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(number)) //nolint:gosec // G115: counts from 0
	return append(b, c.body(number)...)
}

func numberOf(body []byte) int { return int(binary.BigEndian.Uint64(body)) } //nolint:gosec // G115: as above

// poolAtWork is a worker.Pool over a queue.
type poolAtWork struct {
	*ours
	corpus *corpus
	cancel context.CancelFunc
	done   chan error
}

func startPool(ctx context.Context, c *corpus, b driver.Broker, handled func(int)) (handling, error) {
	w, err := openOurs(ctx, c, b, protection{})
	if err != nil {
		return nil, err
	}
	p, err := worker.New(&worker.Options{Concurrency: handlers})
	if err == nil {
		err = p.Handle(w.receiver, worker.HandlerFunc(func(_ context.Context, d *queue.Delivery) error {
			handled(numberOf(d.Body))
			return nil
		}), nil)
	}
	if err != nil {
		return nil, errors.Join(err, w.close(ctx))
	}
	ctx, cancel := context.WithCancel(ctx)
	at := &poolAtWork{ours: w, corpus: c, cancel: cancel, done: make(chan error, 1)}
	go func() { at.done <- p.Run(ctx) }()
	return at, nil
}

// handlers is how many messages are handled at once.
const handlers = 4

func (p *poolAtWork) send(ctx context.Context, number int) error {
	_, err := p.sender.Send(ctx, &queue.Message{Body: numbered(p.corpus, number)})
	return err
}

func (p *poolAtWork) stop() error {
	p.cancel()
	return errors.Join(<-p.done, p.close(context.Background()))
}

// goqiteAtWork is a runner of goqite's jobs.
type goqiteAtWork struct {
	*goqiteQueue
	cancel context.CancelFunc
	done   sync.WaitGroup
}

func startGoqite(c *corpus, poll time.Duration) func(context.Context, string, func(int)) (handling, error) {
	return func(ctx context.Context, dir string, handled func(int)) (handling, error) {
		g, err := newGoqite(ctx, c, dir)
		if err != nil {
			return nil, err
		}
		r := goqitejobs.NewRunner(goqitejobs.NewRunnerOpts{Limit: handlers, PollInterval: poll, Queue: g.queue})
		r.Register(topicName, func(_ context.Context, m []byte) error {
			handled(numberOf(m))
			return nil
		})
		ctx, cancel := context.WithCancel(ctx)
		at := &goqiteAtWork{goqiteQueue: g, cancel: cancel}
		at.done.Go(func() { r.Start(ctx) })
		return at, nil
	}
}

func (g *goqiteAtWork) send(ctx context.Context, number int) error {
	_, err := goqitejobs.Create(ctx, g.queue, topicName, goqite.Message{Body: numbered(g.corpus, number)})
	return err
}

func (g *goqiteAtWork) stop() error {
	g.cancel()
	g.done.Wait()
	return g.db.Close()
}

// riverAtWork is a client of River that works.
type riverAtWork struct {
	*riverQueue
	client *river.Client[*sql.Tx]
}

func startRiver(c *corpus, poll time.Duration) func(context.Context, string, func(int)) (handling, error) {
	return func(ctx context.Context, dir string, handled func(int)) (handling, error) {
		r, err := openRiver(ctx, c, dir, handlers)
		if err != nil {
			return nil, err
		}
		r.poll, r.handled = poll, func(a webhookArgs) { handled(int(a.Sent)) }
		client, err := r.client()
		if err == nil {
			err = client.Start(ctx)
		}
		if err != nil {
			return nil, errors.Join(err, r.db.Close())
		}
		return &riverAtWork{r, client}, nil
	}
}

func (r *riverAtWork) send(ctx context.Context, number int) error {
	_, err := r.client.Insert(ctx, webhookArgs{Body: r.corpus.body(number), Sent: int64(number)}, nil)
	return err
}

func (r *riverAtWork) stop() error {
	return errors.Join(r.client.Stop(context.Background()), r.db.Close())
}

// latencyFigures are those of one handler at each pace, ascending, in nanoseconds from
// the return of a send to the start of its handler.
type latencyFigures struct {
	name  string
	paces [len(paces)][]float64
}

// measureLatency runs the handlers in turns, each for a moment at each pace.
func measureLatency(ctx context.Context, c *corpus, dir string, rounds int) ([]latencyFigures, error) {
	all := latencyHandlers(c)
	out := make([]latencyFigures, len(all))
	for round := range rounds {
		for j := range all {
			i := (round + j) % len(all)
			folder, err := newFolder(dir, fmt.Sprintf("latency-%d-%d", round, i))
			if err != nil {
				return nil, err
			}
			out[i].name = all[i].name
			for p := range paces {
				folder, err := newFolder(folder, fmt.Sprint(p))
				if err != nil {
					return nil, err
				}
				list, err := latencies(ctx, all[i], folder, paces[p])
				if err != nil {
					return nil, fmt.Errorf("%s, %s: %w", all[i].name, paces[p].name, err)
				}
				out[i].paces[p] = append(out[i].paces[p], list...)
			}
		}
	}
	for i := range out {
		for p := range paces {
			slices.Sort(out[i].paces[p])
		}
	}
	return out, nil
}

// warm is how many messages of a turn do not count.
const warm = 5

// latencies is one turn.
func latencies(ctx context.Context, h handler, dir string, p pace) (list []float64, err error) {
	n := warm + p.sends
	returned, started := make([]time.Time, n), make([]atomic.Pointer[time.Time], n)
	var missing atomic.Int64
	missing.Store(int64(n))
	all := make(chan struct{})
	at, err := h.start(ctx, dir, func(number int) {
		now := time.Now()
		if number < n && started[number].CompareAndSwap(nil, &now) && missing.Add(-1) == 0 {
			close(all)
		}
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, at.stop()) }()
	send := func(number int) (time.Time, error) {
		err := at.send(ctx, number)
		return time.Now(), err
	}
	if h.apart != "" {
		p, err := startSender(ctx, h.apart, dir)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, p.stop()) }()
		send = p.send
	}
	next := time.NewTicker(p.every)
	defer next.Stop()
	for i := range n {
		select {
		case <-next.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if returned[i], err = send(i); err != nil {
			return nil, err
		}
	}
	late := time.NewTimer(30 * time.Second)
	defer late.Stop()
	select {
	case <-all:
	case <-late.C:
		return nil, fmt.Errorf("%d of %d messages were not handled in 30 s", missing.Load(), n)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for i := warm; i < n; i++ {
		// Handlers may begin before the send has returned: no time has passed then.
		list = append(list, max(0, float64(started[i].Load().Sub(returned[i]))))
	}
	return list, nil
}

// quantiles are the ones that the report prints.
func quantiles(list []float64) (p50, p99 float64) {
	return measure.Quantile(list, 0.5), measure.Quantile(list, 0.99)
}
