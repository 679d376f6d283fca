package main

import (
	"context"
	"crypto/cipher"
	"errors"
	"fmt"
	"path/filepath"

	"maragu.dev/goqite"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/internal/sealing"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/sqlite/sqlitequeue"
	"github.com/queue-runtime/queue/tests/bench/internal/measure"
)

// growth is what a message costs while something grows: figures in the order of sizes.
type growth struct {
	what    string
	sizes   []int
	figures []measure.Figures
	disk    bool // medians count, and least figures otherwise
}

// ratio is the cost at the i-th size beside that at the first.
func (g *growth) ratio(i int) float64 {
	if g.disk {
		return g.figures[i].Median() / g.figures[0].Median()
	}
	return g.figures[i].Least() / g.figures[0].Least()
}

// growing is a line of the table that a driver's calls make.
type growing struct {
	what  string
	sizes []int
	disk  bool
	fill  func(ctx context.Context, b driver.Broker, size int) (*cycle, error)
}

var allGrowing = []growing{
	{"queues, memqueue", []int{10, 100, 1_000, 10_000}, false, manyQueues},
	{"queues, SQLite", []int{10, 100, 1_000, 10_000}, true, manyQueues},
	{"sessions, memqueue", []int{10, 1_000, 100_000}, false, manySessions},
	{"sessions, SQLite", []int{10, 1_000, 100_000}, true, manySessions},
	{"waiting messages, memqueue", waitingSizes, false, manyWaiting},
	{growthSQLite, waitingSizes, true, manyWaiting},
}

const (
	growthSQLite = "waiting messages, SQLite"
	growthGoqite = "waiting messages, goqite"
)

var waitingSizes = []int{1_000, 10_000, 100_000, 1_000_000}

// growthTurn is how many messages a turn moves.
const (
	growthTurn     = 500
	growthDiskTurn = 40
)

// measureGrowth measures each line of the table; its sizes take turns.
func measureGrowth(ctx context.Context, c *corpus, dir string, memoryRounds, diskRounds int) ([]growth, error) {
	var all []growth
	for _, line := range []func(context.Context, int) (growth, error){measureSenders, measureRaw, measureKeys} {
		g, err := line(ctx, memoryRounds)
		if err != nil {
			return nil, err
		}
		all = append(all, g)
	}
	for i, line := range allGrowing {
		rounds := memoryRounds
		if line.disk {
			rounds = diskRounds
		}
		g, err := line.measure(ctx, filepath.Join(dir, fmt.Sprint("growth-", i)), rounds)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", line.what, err)
		}
		all = append(all, g)
	}
	claimed, err := measureReplay(ctx, dir, replaySizes, diskRounds)
	if err != nil {
		return nil, err
	}
	peer, err := growGoqite(ctx, c, dir, diskRounds)
	return append(all, claimed, peer), err
}

// measure measures a line; files are named after prefix.
func (l growing) measure(ctx context.Context, prefix string, rounds int) (g growth, err error) {
	g = growth{what: l.what, sizes: l.sizes, disk: l.disk}
	each := growthTurn
	if l.disk {
		each = growthDiskTurn
	}
	var ways []measure.Way
	var brokers []driver.Broker
	defer func() {
		for _, b := range brokers {
			err = errors.Join(err, b.Close(ctx))
		}
	}()
	for _, size := range l.sizes {
		b := memqueue.New(&memqueue.Options{Default: memqueue.QueueOptions{MaxBatch: fillBatch}}).Connect()
		if l.disk {
			if b, err = sqlitequeue.Open(ctx, fmt.Sprintf("%s-%d.db", prefix, size), nil); err != nil {
				return g, err
			}
		}
		brokers = append(brokers, b)
		w, err := l.fill(ctx, b, size)
		if err != nil {
			return g, err
		}
		ways = append(ways, measure.Do(fmt.Sprint(size), each, w.one))
	}
	g.figures, err = measure.Interleaved(ctx, measure.Options{Rounds: rounds, Collect: true}, ways)
	return g, err
}

// growGoqite is the peer of the line for waiting messages on SQLite.
func growGoqite(ctx context.Context, c *corpus, dir string, rounds int) (g growth, err error) {
	g = growth{what: growthGoqite, sizes: waitingSizes, disk: true}
	var ways []measure.Way
	var ends []func() error
	defer func() {
		for _, end := range ends {
			err = errors.Join(err, end())
		}
	}()
	for _, size := range g.sizes {
		folder, err := newFolder(dir, fmt.Sprint("growth-goqite-", size))
		if err != nil {
			return g, err
		}
		q, err := newGoqite(ctx, c, folder)
		if err != nil {
			return g, err
		}
		ends = append(ends, func() error { return q.close(ctx) })
		body := make([]byte, 1<<10)
		if err := q.fill(ctx, body[:64], size); err != nil {
			return g, err
		}
		ways = append(ways, measure.Do(fmt.Sprint(size), growthDiskTurn, func(ctx context.Context) error {
			return errors.Join(q.queue.Send(ctx, goqite.Message{Body: body}), q.handle(ctx))
		}))
	}
	g.figures, err = measure.Interleaved(ctx, measure.Options{Rounds: rounds, Collect: true}, ways)
	return g, err
}

// cycle sends, receives and completes a message of 1 KiB, on each of its queues in turn
// and in each of its sessions in turn, by the driver's own calls.
type cycle struct {
	queues   []driver.Queue
	sessions int
	serial   int
	body     []byte
}

func (c *cycle) one(ctx context.Context) error {
	c.serial++
	q := c.queues[c.serial%len(c.queues)]
	m := &driver.Message{ID: fmt.Sprint("m", c.serial), Body: c.body}
	if c.sessions > 0 {
		m.SessionID = fmt.Sprint("s", c.serial%c.sessions)
	}
	if r := q.Send(ctx, []*driver.Message{m}); r[0].Err != nil {
		return r[0].Err
	}
	list, err := q.Receive(ctx, 1, 0)
	if err != nil {
		return err
	}
	if err := wrong(len(list), 1); err != nil {
		return err
	}
	return errors.Join(q.Settle(ctx, []driver.Settlement{{Delivery: list[0], Kind: driver.Complete}})...)
}

func newCycle(ctx context.Context, b driver.Broker, queues int) (*cycle, error) {
	c := &cycle{body: make([]byte, 1<<10)}
	for i := range queues {
		q, err := b.Open(ctx, fmt.Sprint("q", i), nil)
		if err != nil {
			return nil, err
		}
		c.queues = append(c.queues, q)
	}
	return c, nil
}

func manyQueues(ctx context.Context, b driver.Broker, size int) (*cycle, error) {
	return newCycle(ctx, b, size)
}

// manySessions has one message waiting in each of size sessions.
func manySessions(ctx context.Context, b driver.Broker, size int) (*cycle, error) {
	c, err := newCycle(ctx, b, 1)
	if err != nil {
		return nil, err
	}
	c.sessions = size
	return c, c.fill(ctx, size)
}

func manyWaiting(ctx context.Context, b driver.Broker, size int) (*cycle, error) {
	c, err := newCycle(ctx, b, 1)
	if err != nil {
		return nil, err
	}
	return c, c.fill(ctx, size)
}

// fillBatch is how many messages fill sends in a call.
const fillBatch = 500

// fill sends n messages in batches.
func (c *cycle) fill(ctx context.Context, n int) error {
	for i := 0; i < n; i += fillBatch {
		var list []*driver.Message
		for j := i; j < min(n, i+fillBatch); j++ {
			m := &driver.Message{ID: fmt.Sprint("w", j), Body: c.body[:64]}
			if c.sessions > 0 {
				m.SessionID = fmt.Sprint("s", j%c.sessions)
			}
			list = append(list, m)
		}
		for _, r := range c.queues[0].Send(ctx, list) {
			if r.Err != nil {
				return r.Err
			}
		}
	}
	return nil
}

// senderSizes are around the Opener's cache, too.
var senderSizes = []int{1, 100, 1_000, 10_000, envelope.DefaultEntries + envelope.DefaultEntries/4}

// measureSenders opens a message of 1 KiB of each of many senders in turn: each has a
// salt of its own.
func measureSenders(ctx context.Context, rounds int) (growth, error) {
	return measureOpening(ctx, "senders, opening 1 KiB", senderSizes, rounds, func(size int) (func(int) error, error) {
		p, err := newParty()
		if err != nil {
			return nil, err
		}
		return p.openEach(ctx, size, func(int) error { p.endEpoch(); return nil })
	})
}

// measureRaw is the peer of measureSenders: raw AES-256-GCM, a cipher for each message.
func measureRaw(ctx context.Context, rounds int) (growth, error) {
	return measureOpening(ctx, "ciphers, raw AES-256-GCM, opening 1 KiB", senderSizes, rounds, func(size int) (func(int) error, error) {
		ciphers, bodies := make([]cipher.AEAD, size), make([][]byte, size)
		for i := range ciphers {
			var err error
			if ciphers[i], err = raw(); err != nil {
				return nil, err
			}
			bodies[i] = rawSeal(ciphers[i], nil, make([]byte, 1<<10))
		}
		return func(i int) error {
			_, err := ciphers[i].Open(nil, nil, bodies[i], nil)
			return err
		}, nil
	})
}

var keySizes = []int{1, 10, 100, 1_000}

// measureKeys opens a message of 1 KiB under each of many keys of a ring in turn.
func measureKeys(ctx context.Context, rounds int) (growth, error) {
	return measureOpening(ctx, "keys, opening 1 KiB", keySizes, rounds, func(size int) (func(int) error, error) {
		ring, err := keys.NewRing()
		if err != nil {
			return nil, err
		}
		p, err := newPartyOf(ring)
		if err != nil {
			return nil, err
		}
		for i := range size {
			key, err := keys.Generate(nthKey(i), nil)
			if err != nil {
				return nil, err
			}
			if err := ring.Add(key); err != nil {
				return nil, err
			}
		}
		return p.openEach(ctx, size, func(i int) error {
			if err := ring.SetCurrent(nthKey(i)); err != nil {
				return err
			}
			if id, f := p.sealer.CurrentKey(ctx); f != nil {
				return f
			} else if id != nthKey(i) {
				return fmt.Errorf("sealing under %q in place of %q", id, nthKey(i))
			}
			return nil
		})
	})
}

func nthKey(i int) keys.ID { return keys.ID(fmt.Sprint(keyName, "-", i)) }

// openEach seals as many messages, calling before for each, and returns what opens the
// i-th. Their metadata is one: it is not what grows, and has just arrived in a Receiver.
func (p *party) openEach(ctx context.Context, n int, before func(i int) error) (func(i int) error, error) {
	var opened sealing.Opened
	bodies, arrived := make([][]byte, n), &driver.Delivery{}
	open := func(i int) error {
		arrived.Body = bodies[i]
		if f := p.opener.Open(ctx, arrived, &opened); f != nil {
			return f
		}
		return nil
	}
	for i := range bodies {
		if err := before(i); err != nil {
			return nil, err
		}
		m := webhook(make([]byte, 1<<10))
		if err := p.seal(ctx, &m); err != nil {
			return nil, err
		}
		bodies[i], arrived.Message = m.Body, m
		if err := open(i); err != nil {
			return nil, err
		}
	}
	return open, nil
}

// measureOpening calls what prepare returns for a size with 0 to size-1 in turn.
func measureOpening(ctx context.Context, what string, sizes []int, rounds int, prepare func(size int) (func(i int) error, error)) (growth, error) {
	g := growth{what: what, sizes: sizes}
	var ways []measure.Way
	for _, size := range sizes {
		open, err := prepare(size)
		if err != nil {
			return g, err
		}
		i := 0
		ways = append(ways, measure.Do(fmt.Sprint(size), 500, func(context.Context) error {
			i++
			return open(i % size)
		}))
	}
	var err error
	g.figures, err = measure.Interleaved(ctx, measure.Options{Rounds: rounds, Collect: true}, ways)
	return g, err
}
