package postgresreplay

import (
	"context"
	"iter"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/queue-runtime/queue/internal/replaystate"
	"github.com/queue-runtime/queue/postgres/internal/database"
)

// span is the number of sequences of a page. Full of recent messages its encoding
// takes 2.3 KB; each call writes it anew.
const span = 128

// pageKey names a page of a group.
type pageKey struct {
	key   replaystate.Key
	place uint64
}

// pageKeys collects the pages that a call needs, each once.
type pageKeys struct {
	list []pageKey
	seen map[pageKey]struct{}
}

func (k *pageKeys) add(key replaystate.Key, sequence uint64) {
	if k.seen == nil {
		k.seen = make(map[pageKey]struct{}, 2)
	}
	p := pageKey{key, replaystate.IndexOf(sequence, span)}
	if _, ok := k.seen[p]; !ok {
		k.seen[p] = struct{}{}
		k.list = append(k.list, p)
	}
}

// write runs do in a transaction that has the group for itself, and saves what it
// changed. It takes two round trips: one that locks and loads, one that saves and
// commits. The answer comes after the commit has reached the disk.
func (e *engine) write(ctx context.Context, group string, k want, do func(*call)) (stamp replaystate.Stamp, err error) {
	err = e.connected(ctx, func(ctx context.Context, c *conn) error {
		l := newCall(ctx, e, c, group)
		l.begin(k)
		l.keepRun()
		l.takeOver(l.completions)
		if l.err == nil && (e.sweepDue(group) || l.crowded()) {
			l.sweep()
		}
		if l.err == nil {
			do(l)
		}
		l.commit()
		stamp = l.stamp
		return l.end()
	})
	return stamp, err
}

func (e *engine) readOnce(ctx context.Context, group string, k want, do func(*call)) (stamp replaystate.Stamp, err error) {
	err = e.connected(ctx, func(ctx context.Context, c *conn) error {
		l := newCall(ctx, e, c, group)
		l.snapshot(k)
		if l.lost() {
			l.fail(errMemoryLost)
		}
		l.takeOver(l.completions)
		if l.err == nil {
			do(l)
		}
		stamp = l.stamp
		return l.end()
	})
	return stamp, err
}

// Begin implements replaystate.Engine.
func (e *engine) Begin(ctx context.Context, group string, r []replaystate.Request) ([]replaystate.Claim, replaystate.Stamp, error) {
	out := make([]replaystate.Claim, len(r))
	var k pageKeys
	for i := range r {
		k.add(r[i].Key, r[i].Sequence)
		if r[i].Previous > 0 {
			k.add(r[i].Key, r[i].Previous)
		}
	}
	stamp, err := e.write(ctx, group, want{pages: k.list}, func(l *call) {
		for i := range r {
			l.open(r[i].Key)
			l.makeRoom(len(r))
			out[i] = replaystate.Begin(&l.env, l, &r[i])
		}
	})
	return out, stamp, err
}

// Renew implements replaystate.Engine.
func (e *engine) Renew(ctx context.Context, group string, s []replaystate.Lease) ([]replaystate.Outcome, replaystate.Stamp, error) {
	out := make([]replaystate.Outcome, len(s))
	var k pageKeys
	for i := range s {
		k.add(s[i].Key, s[i].Sequence)
	}
	stamp, err := e.write(ctx, group, want{pages: k.list}, func(l *call) {
		for i := range s {
			l.open(s[i].Key)
			out[i] = replaystate.Extend(&l.env, l, &s[i])
		}
	})
	return out, stamp, err
}

// Finish implements replaystate.Engine.
func (e *engine) Finish(ctx context.Context, group string, f []replaystate.Finish) ([]replaystate.Outcome, replaystate.Stamp, error) {
	out := make([]replaystate.Outcome, len(f))
	var k pageKeys
	for i := range f {
		k.add(f[i].Key, f[i].Sequence)
	}
	stamp, err := e.write(ctx, group, want{pages: k.list}, func(l *call) {
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
	var k pageKeys
	for i := range q {
		k.add(q[i].Key, q[i].Sequence)
	}
	stamp, err := e.read(ctx, group, want{pages: k.list, heads: true}, func(l *call) {
		for i := range q {
			l.open(q[i].Key)
			out[i] = replaystate.Examine(&l.env, l, &q[i])
		}
	})
	return out, stamp, err
}

// held says what became of a claim.
func (e *engine) held(ctx context.Context, group string, f *replaystate.Finish) (out replaystate.Outcome, err error) {
	var k pageKeys
	k.add(f.Key, f.Sequence)
	_, err = e.read(ctx, group, want{pages: k.list, heads: true}, func(l *call) {
		l.open(f.Key)
		out = replaystate.Held(&l.env, l, f)
	})
	return out, err
}

// Note implements replaystate.Engine.
func (e *engine) Note(ctx context.Context, group string, n []replaystate.Note) ([]uint64, replaystate.Stamp, error) {
	out := make([]uint64, len(n))
	var k pageKeys
	for i := range n {
		k.add(n[i].Key, n[i].Range.First)
	}
	stamp, err := e.write(ctx, group, want{pages: k.list, heads: true}, func(l *call) {
		for i := range n {
			l.open(n[i].Key)
			if out[i] = 0; l.Head() != nil {
				out[i] = replaystate.Enter(l.Head(), &n[i])
			}
		}
	})
	return out, stamp, err
}

// Probe implements replaystate.Engine. It raises the change number.
func (e *engine) Probe(ctx context.Context, group string) (out replaystate.Outcome, err error) {
	_, err = e.write(ctx, group, want{}, func(l *call) { out = e.limits.Open(l.total(), l.group.sum()) })
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
			_, err := e.read(ctx, group, want{}, func(l *call) { entries, last = l.accounts(from) })
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

// Stats implements replaystate.Engine.
func (e *engine) Stats(ctx context.Context) (replaystate.Stats, error) {
	s := replaystate.Stats{Limits: e.limits, Shared: true}
	err := e.connected(ctx, func(ctx context.Context, c *conn) error {
		var id []byte
		var change int64
		n := &s.Counts
		err := c.QueryRow(ctx, e.sql(selectStats)).Scan(&id, &s.Stamp.Birth, &change, &n.Records, &n.Recents, &n.Streams, &n.Intervals, &s.Bytes, &s.Durable)
		copy(s.Stamp.ID[:], id)
		s.Stamp.Change = uint64(change) //nolint:gosec // G115: counts up from 0
		return err
	})
	return s, err
}

// rollbackTimeout bounds the end of a transaction that failed. The connection is
// closed if it takes longer, which ends the transaction too.
const rollbackTimeout = time.Second

// end ends the transaction if it failed or only read, and returns its failure.
func (l *call) end() error {
	if l.committed || l.c.Conn().IsClosed() {
		return l.err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.ctx), rollbackTimeout)
	defer cancel()
	_, err := l.c.Exec(ctx, "ROLLBACK")
	if l.err == nil {
		l.err = database.Classify(l.ctx, err)
	}
	return l.err
}

var _ replaystate.Engine = (*engine)(nil)

// rows reads all rows of a query.
func rows(r pgx.Rows, err error, each func(pgx.Rows) error) error {
	if err != nil {
		return err
	}
	defer r.Close()
	for r.Next() {
		if err := each(r); err != nil {
			return err
		}
	}
	return r.Err()
}
