package replay

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/queue-runtime/queue/internal/replaystate"
)

// FromEngine makes a Store of an engine: it checks what callers pass, and
// translates requests and answers. It serves the stores of this project; write
// others with package replay/cas.
func FromEngine(e replaystate.Engine) Store { return &engineStore{e} }

// engineStore is a Store over an engine.
type engineStore struct{ engine replaystate.Engine }

// checkCall says what is wrong with a call as a whole.
func checkCall(group string, items int) error {
	if len(group) < 1 || len(group) > MaxGroup {
		return fmt.Errorf("replay: a group of %d bytes: use 1 to %d", len(group), MaxGroup)
	}
	if items > MaxBatch {
		return fmt.Errorf("replay: %d items in one call: use at most %d", items, MaxBatch)
	}
	return nil
}

// items is one call: in are what the caller passed, check and to translate one of
// them, and refuse makes the result of one that check refuses.
type items[In, To, Out any] struct {
	in     []In
	check  func(*In) error
	to     func(*In) To
	refuse func(error) Out
}

// run calls do with the valid items and puts the results in the order of all.
func (c *items[In, To, Out]) run(group string, do func([]To) ([]Out, error)) ([]Out, error) {
	if err := checkCall(group, len(c.in)); err != nil {
		return nil, err
	}
	valid := make([]To, 0, len(c.in))
	var out []Out // with the refused ones; nil if there are none
	var places []int
	for i := range c.in {
		err := c.check(&c.in[i])
		if err != nil && out == nil {
			out, places = make([]Out, len(c.in)), make([]int, i, len(c.in))
			for j := range places {
				places[j] = j
			}
		}
		switch {
		case err != nil:
			out[i] = c.refuse(err)
			continue
		case out != nil:
			places = append(places, i)
		}
		valid = append(valid, c.to(&c.in[i]))
	}
	if len(valid) == 0 {
		return out, nil
	}
	results, err := do(valid)
	if err != nil || out == nil {
		return results, err
	}
	for i, r := range results {
		out[places[i]] = r
	}
	return out, nil
}

// Begin implements Store.
func (s *engineStore) Begin(ctx context.Context, group string, r []Request) ([]Claim, error) {
	c := items[Request, replaystate.Request, Claim]{r, (*Request).Validate, (*Request).state, func(err error) Claim { return Claim{Err: err} }}
	return c.run(group, func(r []replaystate.Request) ([]Claim, error) {
		answers, stamp, err := s.engine.Begin(ctx, group, r)
		if err != nil {
			return nil, err
		}
		out := make([]Claim, len(answers))
		for i, a := range answers {
			out[i] = Claim{Err: outcomeErr(a.Outcome), Gap: a.Gap, FirstSeen: at(a.FirstSeen), BusyUntil: at(a.Until), Stamp: stampOf(stamp)}
		}
		return out, nil
	})
}

// Renew implements Store.
func (s *engineStore) Renew(ctx context.Context, group string, l []Lease) ([]Renewed, error) {
	c := items[Lease, replaystate.Lease, Renewed]{l, (*Lease).validate, func(l *Lease) replaystate.Lease {
		return replaystate.Lease{Key: l.ID.key(), Sequence: l.ID.Sequence, Token: l.Token, Lease: millis(l.Lease)}
	}, func(err error) Renewed { return Renewed{Err: err} }}
	return c.run(group, func(l []replaystate.Lease) ([]Renewed, error) {
		answers, stamp, err := s.engine.Renew(ctx, group, l)
		if err != nil {
			return nil, err
		}
		out := make([]Renewed, len(answers))
		for i, a := range answers {
			out[i] = Renewed{outcomeErr(a), stampOf(stamp)}
		}
		return out, nil
	})
}

// Finish implements Store.
func (s *engineStore) Finish(ctx context.Context, group string, f []Finish) ([]Finished, error) {
	c := items[Finish, replaystate.Finish, Finished]{f, (*Finish).validate, func(f *Finish) replaystate.Finish {
		return replaystate.Finish{Key: f.ID.key(), Sequence: f.ID.Sequence, Token: f.Token, Kind: replaystate.Kind(f.Kind)}
	}, func(err error) Finished { return Finished{Err: err} }}
	return c.run(group, func(f []replaystate.Finish) ([]Finished, error) {
		answers, stamp, err := s.engine.Finish(ctx, group, f)
		if err != nil {
			return nil, err
		}
		out := make([]Finished, len(answers))
		for i, a := range answers {
			out[i] = Finished{outcomeErr(a), stampOf(stamp)}
		}
		return out, nil
	})
}

// Look implements Store.
func (s *engineStore) Look(ctx context.Context, group string, q []Query) ([]Look, error) {
	c := items[Query, replaystate.Query, Look]{q, func(q *Query) error { return q.ID.validate() }, func(q *Query) replaystate.Query {
		return replaystate.Query{Key: q.ID.key(), Sequence: q.ID.Sequence, SealedAt: unix(q.SealedAt)}
	}, func(err error) Look { return Look{Err: err} }}
	return c.run(group, func(q []replaystate.Query) ([]Look, error) {
		answers, stamp, err := s.engine.Look(ctx, group, q)
		if err != nil {
			return nil, err
		}
		out := make([]Look, len(answers))
		for i, a := range answers {
			out[i] = Look{State: State(a.State), FirstSeen: at(a.FirstSeen), LeaseUntil: at(a.Until), Stamp: stampOf(stamp)}
		}
		return out, nil
	})
}

// Note implements Store.
func (s *engineStore) Note(ctx context.Context, group string, n []Note) ([]Noted, error) {
	c := items[Note, replaystate.Note, Noted]{n, (*Note).validate, func(n *Note) replaystate.Note {
		id := Identity{Sender: n.Sender, Stream: n.Stream}
		return replaystate.Note{Key: id.key(), Range: replaystate.Range(n.Range), Kind: replaystate.NoteKind(n.Kind)}
	}, func(err error) Noted { return Noted{Err: err} }}
	return c.run(group, func(n []replaystate.Note) ([]Noted, error) {
		answers, stamp, err := s.engine.Note(ctx, group, n)
		if err != nil {
			return nil, err
		}
		out := make([]Noted, len(answers))
		for i, a := range answers {
			out[i] = Noted{Fresh: a, Stamp: stampOf(stamp)}
		}
		return out, nil
	})
}

// Streams implements Store.
func (s *engineStore) Streams(ctx context.Context, group string) iter.Seq2[Stream, error] {
	return func(yield func(Stream, error) bool) {
		if err := checkCall(group, 0); err != nil {
			yield(Stream{}, err)
			return
		}
		for e, err := range s.engine.Streams(ctx, group) {
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				yield(Stream{}, err)
				return
			}
			if !yield(streamOf(&e), nil) {
				return
			}
		}
	}
}

func streamOf(e *replaystate.Entry) Stream {
	a := &e.Account
	out := Stream{
		Sender: e.Key.Sender, Stream: e.Key.Stream, Opened: at(e.Key.Opened()),
		Start: a.Start, Settled: a.Settled, NewestSealedAt: at(a.Newest),
		Consumed: a.Consumed, MissingForgotten: a.Lost, Implausible: a.Implausible,
	}
	for _, m := range a.Missing {
		out.Missing = append(out.Missing, Missing{Range(m.Range), at(m.Since), m.Late, m.Missing})
	}
	return out
}

// Probe implements Store.
func (s *engineStore) Probe(ctx context.Context, group string) error {
	if err := checkCall(group, 0); err != nil {
		return err
	}
	o, err := s.engine.Probe(ctx, group)
	if err != nil {
		return err
	}
	return outcomeErr(o)
}

// Stats implements Store.
func (s *engineStore) Stats(ctx context.Context) (Stats, error) {
	e, err := s.engine.Stats(ctx)
	if err != nil {
		return Stats{}, err
	}
	quota := func(b replaystate.Bound) Quota { return Quota{int(b.Records), int(b.Streams), int(b.Intervals)} }
	return Stats{
		Stamp: stampOf(e.Stamp), Records: e.Counts.Records, Recent: e.Counts.Recents,
		Intervals: e.Counts.Intervals, Streams: e.Counts.Streams, Bytes: e.Bytes, Shared: e.Shared, Durable: e.Durable,
		Capacity: Bounds{
			Store: quota(e.Limits.Store), Group: quota(e.Limits.Group), Sender: quota(e.Limits.Sender), Recent: int(e.Limits.Recents),
			KeepStream: time.Duration(e.Limits.KeepStream) * time.Millisecond, ParkedTTL: time.Duration(e.Limits.ParkedTTL) * time.Millisecond,
		},
	}, nil
}

// KnownKeys implements Store.
func (s *engineStore) KnownKeys(ctx context.Context, group string) ([]KnownKey, error) {
	if err := checkCall(group, 0); err != nil {
		return nil, err
	}
	g, err := s.engine.Group(ctx, group)
	if err != nil {
		return nil, err
	}
	var all []KnownKey
	for _, k := range g.Keys {
		all = append(all, KnownKey(k))
	}
	return all, nil
}

// NoteKey implements Store.
func (s *engineStore) NoteKey(ctx context.Context, group string, k KnownKey) (KnownKey, error) {
	var known replaystate.KnownKey
	if err := s.changeKeys(ctx, group, &k, func(g *replaystate.Group) { known = g.Note(replaystate.KnownKey(k)) }); err != nil {
		return KnownKey{}, err
	}
	return KnownKey(known), nil
}

// ForgetKey implements Store.
func (s *engineStore) ForgetKey(ctx context.Context, group string, k KnownKey) (bool, error) {
	found := false
	if err := s.changeKeys(ctx, group, &k, func(g *replaystate.Group) { found = g.Forget(replaystate.KnownKey(k)) }); err != nil {
		return false, err // the engine may still be at it
	}
	return found, nil
}

func (s *engineStore) changeKeys(ctx context.Context, group string, k *KnownKey, do func(*replaystate.Group)) error {
	if err := checkCall(group, 1); err != nil {
		return err
	}
	if err := k.validate(); err != nil {
		return err
	}
	return s.engine.Change(ctx, group, do)
}

// History implements Store.
func (s *engineStore) History(ctx context.Context) (History, error) {
	h, err := s.engine.History(ctx)
	if err != nil {
		return History{}, err
	}
	out := History{Stamp: stampOf(h.Stamp)}
	for i := range h.Losses {
		out.Losses = append(out.Losses, lossOf(&h.Losses[i]))
	}
	return out, nil
}

// AcceptLoss implements Store.
func (s *engineStore) AcceptLoss(ctx context.Context, lost Stamp) (Loss, error) {
	if lost.ID == [16]byte{} {
		return Loss{}, fmt.Errorf("%w: the ID of the lost memory is zero", ErrInvalid)
	}
	l, err := s.engine.Accept(ctx, lost.state())
	if err != nil {
		return Loss{}, err
	}
	return lossOf(&l), nil
}

func (id *Identity) key() replaystate.Key {
	return replaystate.Key{Sender: id.Sender, Stream: id.Stream}
}

func (r *Request) state() replaystate.Request {
	out := replaystate.Request{
		Key: r.ID.key(), Sequence: r.ID.Sequence, Token: r.Token, Tag: r.Tag, Resealed: r.Resealed,
		SealedAt: unix(r.SealedAt), FreshUntil: unix(r.FreshUntil), Now: unix(r.Now),
		RetryWindow: millis(r.RetryWindow), Lease: millis(r.Lease),
		Reach: millis(r.MaxMessageAge) + 3*millis(r.MaxClockSkew), Skew: millis(r.MaxClockSkew),
		Settled: r.Settled, Previous: r.Previous,
	}
	for _, v := range r.Void {
		out.Void = append(out.Void, replaystate.Range(v))
	}
	return out
}

// maxMillis bounds durations and times, so that sums of a few never wrap.
const maxMillis = 1 << 56

// millis rounds a duration up, so that one above zero stays so.
func millis(d time.Duration) int64 {
	ms := d.Milliseconds()
	if d > time.Duration(ms)*time.Millisecond {
		ms++
	}
	return ms
}

// unix returns a time in milliseconds, 0 for the zero time.
func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return min(max(t.UnixMilli(), -maxMillis), maxMillis)
}

// at is the reverse of unix.
func at(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

func stampOf(s replaystate.Stamp) Stamp { return Stamp{s.ID, at(s.Birth), s.Change} }

// outcomeErr gives an outcome its error.
func outcomeErr(o replaystate.Outcome) error {
	switch o {
	case replaystate.Done:
		return nil
	case replaystate.Duplicate:
		return ErrDuplicate
	case replaystate.Reused:
		return ErrReused
	case replaystate.Collision:
		return ErrCollision
	case replaystate.Busy:
		return ErrBusy
	case replaystate.NotFresh:
		return ErrNotFresh
	case replaystate.Full:
		return ErrFull
	case replaystate.Quota:
		return ErrQuota
	case replaystate.Handled:
		return ErrHandled
	}
	return ErrClaimLost
}
