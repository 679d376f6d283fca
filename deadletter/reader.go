package deadletter

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
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
	if err := f.check(); err != nil {
		return err
	}
	return ctx.Err()
}

// read calls visit for each letter until it returns false.
func (q *Queue) read(ctx context.Context, visit func(*driver.Delivery) bool) error {
	if q.dead.Capabilities().Peek == driver.None {
		return q.readReceiving(ctx, visit)
	}
	for cursor := ""; ; {
		batch, next, err := q.dead.Peek(ctx, cursor, peekBatch)
		if err != nil {
			return err
		}
		for _, m := range batch {
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

func (q *Queue) readReceiving(ctx context.Context, visit func(*driver.Delivery) bool) error {
	r := q.reader()
	defer r.release(ctx)
	for {
		batch, err := r.next(ctx)
		if err != nil || len(batch) == 0 {
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
	q      *Queue
	begun  time.Time
	batch  int                         // how many a call asks for
	seen   map[string]struct{}         // by BrokerID
	kept   map[string]*driver.Delivery // by BrokerID, without bodies
	repeat int                         // letters in a row that were seen before
}

func (q *Queue) reader() *reader {
	return &reader{q: q, begun: time.Now(), batch: receiveBatch, seen: make(map[string]struct{}), kept: make(map[string]*driver.Delivery)}
}

// next returns letters that were not seen before, and none at the end of the queue. A
// letter that was dead-lettered since the reading began is not part of it: a message
// that is redriven and rejected again must not go round for ever.
func (r *reader) next(ctx context.Context) ([]*driver.Delivery, error) {
	for {
		batch, err := r.q.dead.Receive(ctx, r.batch, r.q.wait)
		if err != nil || len(batch) == 0 {
			return nil, err
		}
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
			fresh = append(fresh, m)
		}
		if len(fresh) > 0 {
			return fresh, nil
		}
		if r.repeat > len(r.seen) {
			return nil, nil // all came again, and there are no others
		}
	}
}

// keep remembers letters to give back at the end.
func (r *reader) keep(batch ...*driver.Delivery) {
	for _, m := range batch {
		slim := *m
		slim.Body, slim.Attributes = nil, nil
		r.kept[m.BrokerID] = &slim // the newest receipt is the one that counts
	}
}

// release gives back what was kept.
func (r *reader) release(ctx context.Context) {
	if len(r.kept) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	settle := make([]driver.Settlement, 0, len(r.kept))
	for _, m := range r.kept {
		settle = append(settle, driver.Settlement{Delivery: m, Kind: driver.Release})
	}
	_ = r.q.dead.Settle(ctx, settle) // if it fails the lock runs out
}

// Purge deletes the letters that f selects, for good, and returns how many it deleted. f
// must not be nil: &Filter{} selects everything. With a replay store those that open
// count as seen from then on, so that they are not reported as missing; if the store does
// not answer, nothing more is deleted.
func (q *Queue) Purge(ctx context.Context, f *Filter) (int, error) {
	const op = "purge dead letters"
	if f == nil {
		return 0, queue.NewError(op, q.name, fmt.Errorf("%w: Purge needs a filter; &Filter{} deletes everything", queue.ErrInvalidOptions))
	}
	if err := checkCall(ctx, f); err != nil {
		return 0, queue.NewError(op, q.name, err)
	}
	r := q.reader()
	defer r.release(ctx)
	purged := 0
	for {
		batch, err := r.next(ctx)
		if err != nil || len(batch) == 0 {
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
	for _, s := range settle {
		opened, f := q.opener.Open(ctx, s.Delivery)
		if f != nil || opened.Envelope == nil {
			continue
		}
		e := opened.Envelope
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
