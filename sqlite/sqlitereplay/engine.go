package sqlitereplay

import (
	"context"
	"iter"
	"sync/atomic"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/replaystate"
	"github.com/queue-runtime/queue/sqlite/internal/sqlitefile"
)

// span is the number of sequences of a page. Full of recent messages its encoding
// takes 2.3 KB, so that it fits into a page of the file.
const span = 128

// engine is the replaystate.Engine of a Store.
type engine struct {
	file    *sqlitefile.File
	limits  replaystate.Limits
	durable bool
	shift   time.Duration // of the clock, for tests
	handle  *handle

	calls atomic.Int64 // that wrote
	swept atomic.Int64 // when the last sweep was

	// What follows belongs to the goroutine that writes.
	sender  string // whose old streams were looked at last
	cache   cache
	encoded []byte // the encoding of the page saved last, for its memory
}

func (e *engine) now() int64 { return time.Now().Add(e.shift).UnixMilli() }

// Whether the disk must have what a call writes before the answer.
const (
	unsynced = false
	synced   = true
)

// write runs do, for that many items, in a transaction and saves what it changed. lasting says
// that the disk must have it before the answer.
func (e *engine) write(ctx context.Context, group string, items int, lasting bool, do func(*call)) (stamp replaystate.Stamp, err error) {
	sweep := e.calls.Add(1)%sweepCalls == 0 || e.now()-e.swept.Load() >= sweepTime
	transaction := e.file.WriteUnsynced
	if lasting {
		transaction = e.file.Write
	}
	err = transaction(ctx, func(c *sqlitefile.Conn) error {
		l := newCall(e, c, group, writing)
		if l.err == nil && (sweep || l.crowded()) {
			l.sweep(items)
			e.swept.Store(l.env.Now)
		}
		if l.err == nil {
			do(l)
		}
		l.save()
		stamp = l.cache.stamp
		return l.err
	})
	if err == nil {
		e.handle.confirm(stamp)
	}
	return stamp, unabort(err)
}

// read runs do on one view of the file.
func (e *engine) read(ctx context.Context, group string, do func(*call)) (stamp replaystate.Stamp, err error) {
	err = e.file.Snapshot(ctx, func(c *sqlitefile.Conn) error {
		l := newCall(e, c, group, reading)
		if l.err == nil {
			do(l)
		}
		stamp = l.cache.stamp
		return l.err
	})
	return stamp, unabort(err)
}

// Begin implements replaystate.Engine. It does not wait for the disk: the holder
// of a claim that a power cut forgets has ended with the machine. See the package
// comment.
func (e *engine) Begin(ctx context.Context, group string, r []replaystate.Request) ([]replaystate.Claim, replaystate.Stamp, error) {
	out := make([]replaystate.Claim, len(r))
	stamp, err := e.write(ctx, group, len(r), unsynced, func(l *call) {
		for i := range r {
			l.open(r[i].Key)
			l.makeRoom()
			out[i] = replaystate.Begin(&l.env, l, &r[i])
		}
	})
	return out, stamp, err
}

// Renew implements replaystate.Engine. It does not wait for the disk, for the same
// reason as Begin.
func (e *engine) Renew(ctx context.Context, group string, s []replaystate.Lease) ([]replaystate.Outcome, replaystate.Stamp, error) {
	out := make([]replaystate.Outcome, len(s))
	stamp, err := e.write(ctx, group, len(s), unsynced, func(l *call) {
		for i := range s {
			l.open(s[i].Key)
			out[i] = replaystate.Extend(&l.env, l, &s[i])
		}
	})
	return out, stamp, err
}

// Finish implements replaystate.Engine. A call that consumes or parks waits for
// the disk once; one that only releases does not: without it the claim ends with
// its lease.
func (e *engine) Finish(ctx context.Context, group string, f []replaystate.Finish) ([]replaystate.Outcome, replaystate.Stamp, error) {
	out := make([]replaystate.Outcome, len(f))
	lasting := false
	for i := range f {
		lasting = lasting || f[i].Kind != replaystate.Release
	}
	stamp, err := e.write(ctx, group, len(f), lasting, func(l *call) {
		for i := range f {
			l.open(f[i].Key)
			out[i] = replaystate.End(&l.env, l, &f[i])
		}
	})
	return out, stamp, err
}

// Look implements replaystate.Engine.
func (e *engine) Look(ctx context.Context, group string, q []replaystate.Query) ([]replaystate.Look, replaystate.Stamp, error) {
	out := make([]replaystate.Look, len(q))
	stamp, err := e.read(ctx, group, func(l *call) {
		for i := range q {
			l.open(q[i].Key)
			out[i] = replaystate.Examine(&l.env, l, &q[i])
		}
	})
	return out, stamp, err
}

// Note implements replaystate.Engine.
func (e *engine) Note(ctx context.Context, group string, n []replaystate.Note) ([]uint64, replaystate.Stamp, error) {
	out := make([]uint64, len(n))
	stamp, err := e.write(ctx, group, len(n), synced, func(l *call) {
		for i := range n {
			l.open(n[i].Key)
			if out[i] = 0; l.Head() != nil {
				out[i] = replaystate.Enter(l.Head(), &n[i])
			}
		}
	})
	return out, stamp, err
}

// Probe implements replaystate.Engine. It raises the change number, and waits for
// the disk.
func (e *engine) Probe(ctx context.Context, group string) (out replaystate.Outcome, err error) {
	_, err = e.write(ctx, group, 1, synced, func(l *call) { out = e.limits.Open(l.cache.store, l.group.counts) })
	return out, err
}

// streamsStep is how many streams are read at once.
const streamsStep = 64

// Streams implements replaystate.Engine.
func (e *engine) Streams(ctx context.Context, group string) iter.Seq2[replaystate.Entry, error] {
	return func(yield func(replaystate.Entry, error) bool) {
		last := int64(0)
		for {
			var entries []replaystate.Entry
			from := last
			_, err := e.read(ctx, group, func(l *call) { entries, last = l.accounts(group, from) })
			if err != nil {
				yield(replaystate.Entry{}, err)
				return
			}
			for _, s := range entries {
				if !yield(s, nil) {
					return
				}
			}
			if last == 0 {
				return
			}
		}
	}
}

// accounts returns the next streams behind an ID and the last ID, 0 at the end.
func (l *call) accounts(group string, from int64) (entries []replaystate.Entry, last int64) {
	type row struct {
		id   int64
		key  replaystate.Key
		head []byte
	}
	var rows []row
	l.fail(l.c.Query(listStreams, func(r sqlitefile.Row) error {
		k := replaystate.Key{Sender: r.Text(1)}
		copy(k.Stream[:], r.Bytes(2))
		rows = append(rows, row{r.Int(0), k, r.Bytes(3)})
		return nil
	}, group, from, int64(streamsStep)))
	for _, s := range rows {
		h, err := replaystate.DecodeHead(s.head)
		l.corrupt(err)
		var pages []*replaystate.Page
		l.fail(l.c.Query(allPages, func(r sqlitefile.Row) error {
			p, err := replaystate.DecodePage(r.Bytes(1), uint64(r.Int(0)), span) //nolint:gosec // G115: written from one
			pages = append(pages, p)
			return err
		}, s.id))
		if l.err != nil {
			return nil, 0
		}
		entries = append(entries, replaystate.Entry{Key: s.key, Account: replaystate.Count(&l.env, s.key, h, pages)})
		last = s.id
	}
	if len(rows) < streamsStep {
		last = 0
	}
	return entries, last
}

// Stats implements replaystate.Engine.
func (e *engine) Stats(ctx context.Context) (replaystate.Stats, error) {
	s := replaystate.Stats{Limits: e.limits, Shared: true, Durable: e.durable}
	err := e.file.Snapshot(ctx, func(c *sqlitefile.Conn) (err error) {
		if s.Stamp, s.Counts, err = readStore(c); err != nil {
			return err
		}
		s.Bytes, err = c.Int(fileBytes)
		return err
	})
	return s, err
}

// readStore reads the one row of the store.
func readStore(c *sqlitefile.Conn) (stamp replaystate.Stamp, n replaystate.Counts, err error) {
	found, err := c.One(selectStore, func(r sqlitefile.Row) error {
		copy(stamp.ID[:], r.Bytes(0))
		stamp.Birth, stamp.Change = r.Int(1), uint64(r.Int(2)) //nolint:gosec // G115: counts up from 0
		n = counts(r, 3)
		return nil
	})
	if err == nil && !found {
		err = driver.Errorf(driver.Corrupt, "the row of the store is gone")
	}
	return stamp, n, err
}

// counts reads four columns.
func counts(r sqlitefile.Row, from int) replaystate.Counts {
	return replaystate.Counts{Records: r.Int(from), Recents: r.Int(from + 1), Streams: r.Int(from + 2), Intervals: r.Int(from + 3)}
}
