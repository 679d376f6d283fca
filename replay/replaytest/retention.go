package replaytest

import (
	"errors"
	"time"

	"github.com/queue-runtime/queue/replay"
)

func look(t *trial) {
	h := t.handle()
	r := at(t.young("s"), 1)
	h.look(replay.StateUnknown, r)
	if n := h.stats(); n.Streams != 0 || n.Records != 0 {
		t.errorf("a look left %d streams and %d records", n.Streams, n.Records)
	}
	h.begin(nil, r)
	l := h.look(replay.StateClaimed, r)
	if l.FirstSeen.IsZero() || l.Resealable(time.Now()) {
		t.errorf("%+v of a live claim", l)
	}
	t.advance(2 * lease)
	if l := h.look(replay.StateClaimed, r); !t.o.Observes && !l.Resealable(time.Now()) {
		t.errorf("%+v of a claim that is over", l)
	}
	h.finish(nil, replay.Released, r)
	if l := h.look(replay.StateReleased, r); !l.Resealable(time.Now()) {
		t.errorf("%+v of a released message", l)
	}
	r = again(r)
	h.handled(r)
	if l := h.look(replay.StateConsumed, r); l.Resealable(time.Now()) {
		t.errorf("%+v of a consumed message", l)
	}
}

// lookUnused: unused is only what the memory reaches back to.
func lookUnused(t *trial) {
	h := t.handle()
	born := h.stats().Stamp.Birth
	id := t.young("s")
	h.handled(at(id, 2))
	h.look(replay.StateUnused, at(id, 1))
	h.look(replay.StateUnused, at(id, 5000))
	old := at(id, 3)
	old.SealedAt = born.Add(skew) // perhaps before the store was born
	h.look(replay.StateUnknown, old)
	old.SealedAt = time.Time{}
	h.look(replay.StateUnknown, old)
	h.look(replay.StateUnknown, at(t.young("s"), 1)) // a stream that is not held
	stale := at(id, 4)
	stale.Now = stale.FreshUntil.Add(time.Hour)
	h.begin(replay.ErrNotFresh, stale) // a rejection makes nothing known
	h.look(replay.StateUnused, stale)
}

// folding: what was consumed is known for as long as the stream is held, as few
// intervals.
func folding(t *trial) {
	h := t.handle()
	id := t.young("s")
	var all []replay.Request
	for n := uint64(1); n <= 3000; n++ {
		if n%1000 != 0 {
			all = append(all, at(id, n))
		}
	}
	for i := 0; i < len(all); i += 500 {
		h.handled(all[i:min(i+500, len(all))]...)
	}
	for i := range all {
		all[i] = again(all[i])
	}
	h.begin(replay.ErrDuplicate, all...)
	clock := h.passFolding()
	h.begin(replay.ErrReused, all...)
	if n := h.stats(); !t.o.Approximate && (n.Intervals != 3+clock || n.Recent != 1) {
		t.errorf("%d intervals and %d recent, want %d and 1", n.Intervals, n.Recent, 3+clock)
	}
	t.advance(24 * time.Hour)
	h.passFolding()
	h.begin(replay.ErrReused, all...)
	h.handled(at(id, 1000), at(id, 2000)) // stragglers
	h.passFolding()
	h.begin(replay.ErrReused, at(id, 1000), at(id, 1001), at(id, 2000))
	h.missing(id)
}

// forever returns the message as a receiver sees it that takes every age for
// fresh.
func forever(r replay.Request) replay.Request {
	r = again(r)
	r.FreshUntil = r.Now.Add(1000 * time.Hour)
	return r
}

// pass lets days pass in a group that is busy.
func (h handle) pass(days int) {
	for range days {
		h.t.advance(24 * time.Hour)
		h.handled(at(h.t.stream("clock", time.Now()), 1))
	}
	h.passFolding()
}

// marks: a stream that was dropped leaves a mark, so that what was in it is never
// fresh again, whatever a receiver believes.
func marks(t *trial) {
	h := t.bounded(replay.Bounds{KeepStream: 48 * time.Hour})
	r := at(t.young("s"), 1)
	never := at(t.young("s"), 1) // sealed, and never delivered
	t.advance(skew)
	last := at(r.ID, 2)
	h.handled(r, last)
	h.pass(1)
	h.begin(replay.ErrReused, forever(r))
	h.pass(4)
	if h.account(r.ID) != nil {
		t.errorf("the stream is held after more than KeepStream")
	}
	h.begin(replay.ErrNotFresh, forever(r), forever(last), forever(never))
	h.begin(nil, forever(at(r.ID, 3))) // sealed after the mark
	h.begin(replay.ErrNotFresh, forever(r), forever(last))
	back := forever(r)
	back.Now = r.Now // a receiver whose clock was set back
	h.begin(replay.ErrNotFresh, back)
	h.look(replay.StateUnknown, r)
}

// streamMark: a stream with too many intervals forgets the oldest, and refuses
// what was in them.
func streamMark(t *trial) {
	h := t.handle()
	id := t.young("s")
	const n = 1100
	var all []replay.Request
	for i := range uint64(n) {
		t.advance(time.Millisecond)
		r := at(id, 2*i+1)
		r.Settled = r.ID.Sequence - 1
		all = append(all, r)
	}
	h.handled(all...)
	h.passFolding()
	for i := range all {
		all[i] = forever(all[i])
	}
	c, err := h.s.Begin(t.ctx, group, all)
	if err != nil {
		t.fatalf("Begin: %v", err)
	}
	forgotten := 0
	for i := range c {
		switch {
		case errors.Is(c[i].Err, replay.ErrNotFresh):
			forgotten++
		case errors.Is(c[i].Err, replay.ErrReused):
		default:
			t.fatalf("sequence %d: %v", all[i].ID.Sequence, c[i].Err)
		}
	}
	if forgotten == 0 || forgotten > n/2 {
		t.errorf("%d of %d are forgotten, want those above 1,024 intervals, and their pages", forgotten, n)
	}
	if a := h.account(id); a.MissingForgotten == 0 || a.Start == 1 {
		t.errorf("%d missing forgotten, accounting from %d", a.MissingForgotten, a.Start)
	}
	h.handled(at(id, 2*n+1))
}

// reach: a stream is kept for as long as the largest reach asked for.
func reach(t *trial) {
	h := t.bounded(replay.Bounds{KeepStream: 24 * time.Hour})
	r := at(t.young("s"), 1)
	h.handled(r)
	far := at(t.stream("far", time.Now()), 1)
	far.MaxMessageAge = 96 * time.Hour
	h.handled(far)
	h.pass(3)
	h.begin(replay.ErrReused, forever(r))
	h.pass(3)
	h.begin(replay.ErrNotFresh, forever(r))
}

// clockJump: time that passes without messages drops no stream.
func clockJump(t *trial) {
	h := t.bounded(replay.Bounds{KeepStream: 24 * time.Hour})
	r := at(t.young("s"), 1)
	h.handled(r)
	t.advance(300 * 24 * time.Hour)
	// Sealed before the jump: the group's time stands still.
	for i := range uint64(20) {
		old := r
		old.ID = t.stream("clock", r.SealedAt)
		old.ID.Sequence = i + 1
		old.Token = replay.NewToken()
		h.handled(old)
		t.advance(10 * time.Minute)
	}
	h.begin(replay.ErrReused, forever(r))
}
