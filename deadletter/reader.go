package deadletter

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/sealing"
	"github.com/queue-runtime/queue/replay"
)

// This file reads a dead-letter queue from end to end, once: by peeking if the broker
// can, otherwise by receiving. What a reader receives and does not take is kept locked
// until the end, so that it does not come again.

// How many letters one call asks for: 10 is the most that every broker gives at once;
// peeking locks nothing, so that a call may bring more.
const (
	receiveBatch = 10
	peekBatch    = 100
)

// settleTimeout bounds the settling of letters when the caller has left.
const settleTimeout = 15 * time.Second

// errFewResults is an error of a driver that answers for fewer messages than asked.
var errFewResults = errors.New("the driver returned too few results")

// scan reads the letters that f selects without taking them away.
func (q *Queue) scan(ctx context.Context, f *Filter) iter.Seq2[*driver.Delivery, error] {
	return func(yield func(*driver.Delivery, error) bool) {
		err := checkCall(ctx, f)
		if err == nil {
			left := f.limit()
			err = q.read(ctx, func(m *driver.Delivery) bool {
				if !f.match(m) {
					return true
				}
				left--
				return yield(m, nil) && left != 0
			})
		}
		if err != nil {
			yield(nil, err)
		}
	}
}

// checkCall refuses what no call can do.
func checkCall(ctx context.Context, f *Filter) error {
	if ctx == nil {
		return fmt.Errorf("%w: nil context", queue.ErrInvalidOptions)
	}
	return f.check()
}

// read calls visit for each letter until it returns false. It ends with an
// IncompleteError if it could not reach all.
func (q *Queue) read(ctx context.Context, visit func(*driver.Delivery) bool) error {
	if q.dead.Capabilities().Peek == driver.None {
		return q.readReceiving(ctx, visit)
	}
	begun, err := q.count(ctx)
	if err != nil {
		return err
	}
	reached := 0
	for cursor := ""; ; {
		batch, next, err := q.dead.Peek(ctx, cursor, peekBatch)
		if err != nil {
			return err
		}
		for _, m := range batch {
			if reached == begun.bound() {
				return q.remainder(ctx, remainder{end: bounded, begun: begun, reached: reached})
			}
			reached++
			if !visit(m) {
				return nil
			}
		}
		if next == "" {
			return nil
		}
		cursor = next
	}
}

// remainder asks for what the end of a read needs to know, and returns its error.
func (q *Queue) remainder(ctx context.Context, r remainder) error {
	var err error
	if r.now, err = q.count(ctx); err != nil {
		return err
	}
	return r.err()
}

func (q *Queue) readReceiving(ctx context.Context, visit func(*driver.Delivery) bool) error {
	r, err := q.reader(ctx)
	if err != nil {
		return err
	}
	defer r.release(ctx)
	for {
		batch, err := r.next(ctx)
		if len(batch) == 0 { // after an error, too
			return err
		}
		more := true
		for _, m := range batch {
			more = more && visit(m)
		}
		r.keep(batch...)
		if !more {
			return nil
		}
	}
}

// reader receives each letter once.
type reader struct {
	q       *Queue
	begun   time.Time
	count   letterCount         // at the beginning
	batch   int                 // how many a call asks for
	seen    map[string]struct{} // by BrokerID
	reached int                 // letters of seen that were there at the beginning
	repeat  int                 // letters in a row that were seen before
	kept    keptLocks
}

// reader begins a read. The caller releases it.
func (q *Queue) reader(ctx context.Context) (*reader, error) {
	count, err := q.count(ctx)
	if err != nil {
		return nil, err
	}
	return &reader{q: q, begun: time.Now(), count: count, batch: receiveBatch, seen: make(map[string]struct{}), kept: newKeptLocks(q.dead)}, nil
}

// next returns letters that were not seen before, and none at the end of the queue: then
// its error is an IncompleteError if it did not reach all. A letter that was dead-lettered
// since the reading began is not part of it: a message that is redriven and rejected again
// must not go round for ever.
func (r *reader) next(ctx context.Context) ([]*driver.Delivery, error) {
	for {
		// A broker that invents letters ends the read, too, if they carry later times.
		if bound := r.count.bound(); r.reached >= bound || len(r.seen) >= 2*bound+1000 {
			return nil, r.end(ctx, bounded)
		}
		r.kept.renew(ctx)
		batch, err := r.q.dead.Receive(ctx, r.batch, r.q.wait)
		if err != nil {
			return nil, err
		}
		if len(batch) == 0 {
			return nil, r.end(ctx, drained)
		}
		if fresh := r.sort(batch); len(fresh) > 0 {
			return fresh, nil
		}
		if r.repeat > len(r.seen) {
			return nil, r.end(ctx, repeated)
		}
	}
}

// sort returns the letters of a batch that are new to the read, and keeps the others.
func (r *reader) sort(batch []*driver.Delivery) []*driver.Delivery {
	fresh := batch[:0:0]
	for _, m := range batch {
		_, known := r.seen[m.BrokerID]
		r.seen[m.BrokerID] = struct{}{}
		if known {
			r.repeat++ // its lock ran out
		} else {
			r.repeat = 0
		}
		if known || reasonOf(m).At.After(r.begun) {
			r.keep(m)
			continue
		}
		r.reached++
		fresh = append(fresh, m)
	}
	return fresh
}

// end is the error of a read that ends so.
func (r *reader) end(ctx context.Context, how ending) error {
	if how == drained && r.count.n < 0 && r.q.dead.Capabilities().Peek != driver.None {
		return r.lookOver(ctx)
	}
	return r.q.remainder(ctx, remainder{
		end: how, begun: r.count, reached: r.reached, kept: len(r.kept.letters),
		// As on a FIFO queue of SQS, whose dead-letter queue is one, too.
		ordered: r.q.main.Capabilities().Sessions != driver.None && r.q.dead.Capabilities().Peek == driver.None,
	})
}

// lookOver finds by peeking what receiving did not bring, if the broker does not count: other
// receivers hold it, or the broker does not answer, which a receive that waits for letters
// cannot tell from an empty queue.
func (r *reader) lookOver(ctx context.Context) error {
	var left int64
	for cursor, looked := "", 0; ; {
		batch, next, err := r.q.dead.Peek(ctx, cursor, peekBatch)
		if err != nil {
			return err
		}
		for _, m := range batch {
			if _, known := r.seen[m.BrokerID]; !known && !reasonOf(m).At.After(r.begun) {
				left++
			}
		}
		if looked += len(batch); next == "" || looked >= maxRead {
			break
		}
		cursor = next
	}
	if left == 0 {
		return nil
	}
	return &IncompleteError{Reached: r.reached, Left: left, end: drained}
}

// keep holds letters until the end of the read, so that they do not come again. Without a
// reader the letters were peeked, and nothing is held.
func (r *reader) keep(batch ...*driver.Delivery) {
	if r != nil {
		r.kept.add(batch...)
	}
}

// release gives back what was kept.
func (r *reader) release(ctx context.Context) { r.kept.release(ctx) }

// Purge deletes the letters that f selects, for good, and returns how many it deleted. f
// must not be nil; &Filter{} selects everything. With a replay store those that open
// count as seen from then on, so that they are not reported as missing; if the store does
// not answer, nothing more is deleted. Only letters that were there when it began are
// deleted. If it could not reach all of them, because other receivers hold some, its error
// is an [IncompleteError]; what it deleted before stays deleted.
func (q *Queue) Purge(ctx context.Context, f *Filter) (int, error) {
	const op = "purge dead letters"
	if f == nil {
		return 0, queue.NewError(op, q.name, fmt.Errorf("%w: Purge needs a filter; &Filter{} deletes everything", queue.ErrInvalidOptions))
	}
	if err := checkCall(ctx, f); err != nil {
		return 0, queue.NewError(op, q.name, err)
	}
	r, err := q.reader(ctx)
	if err != nil {
		return 0, queue.NewError(op, q.name, err)
	}
	defer r.release(ctx)
	purged := 0
	for {
		batch, err := r.next(ctx)
		if len(batch) == 0 { // after an error, too
			return purged, queue.NewError(op, q.name, err)
		}
		n, err := q.purgeBatch(ctx, r, f, batch, purged)
		purged += n
		if err != nil || f.Limit > 0 && purged >= f.Limit {
			return purged, queue.NewError(op, q.name, err)
		}
	}
}

// purgeBatch deletes what f selects of a batch, after purged others, and keeps the rest.
func (q *Queue) purgeBatch(ctx context.Context, r *reader, f *Filter, batch []*driver.Delivery, purged int) (int, error) {
	var settle []driver.Settlement
	for _, m := range batch {
		if f.match(m) && (f.Limit == 0 || purged+len(settle) < f.Limit) {
			settle = append(settle, driver.Settlement{Delivery: m, Kind: driver.Complete})
		} else {
			r.keep(m)
		}
	}
	if err := q.accept(ctx, settle); err != nil {
		for _, s := range settle {
			r.keep(s.Delivery)
		}
		return 0, err
	}
	n := 0
	var first error
	for i, err := range q.settleDead(ctx, settle) {
		if err == nil {
			n++
			continue
		}
		r.keep(settle[i].Delivery)
		if first == nil {
			first = err
		}
	}
	return n, first
}

// accept tells the replay store of letters that are to be deleted. One that does not open
// says nothing: with its numbers a broker could explain any message away.
func (q *Queue) accept(ctx context.Context, settle []driver.Settlement) error {
	if q.store == nil {
		return nil
	}
	var notes []replay.Note
	var opened sealing.Opened
	for _, s := range settle {
		f := q.opener.Open(ctx, s.Delivery, &opened)
		if f != nil || !opened.Sealed {
			continue
		}
		e := &opened.Envelope
		notes = append(notes, replay.Note{
			Sender: e.Sender, Stream: e.Stream, Range: replay.Range{First: e.Sequence, Last: e.Sequence}, Kind: replay.NoteAccepted,
		})
	}
	if len(notes) == 0 {
		return nil
	}
	if _, err := q.store.Note(ctx, q.group, notes); err != nil {
		return fmt.Errorf("%w: %w", queue.ErrReplayStore, err)
	}
	return nil
}

// settleDead settles letters and returns one error (or nil) for each.
func (q *Queue) settleDead(ctx context.Context, settle []driver.Settlement) []error {
	if len(settle) == 0 {
		return nil
	}
	errs := q.dead.Settle(ctx, settle)
	for len(errs) < len(settle) {
		errs = append(errs, errFewResults)
	}
	return errs
}
