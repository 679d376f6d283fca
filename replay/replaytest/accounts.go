package replaytest

import (
	"time"

	"github.com/queue-runtime/queue/replay"
)

// gap: a message whose previous one was not seen says so.
func gap(t *trial) {
	h := t.handle()
	id := t.young("s")
	after := func(n, previous uint64) replay.Request {
		r := at(id, n)
		r.Previous = previous
		return r
	}
	expect := func(want bool, r replay.Request) replay.Request {
		if c := h.begin(nil, r)[0]; c.Gap != want {
			t.errorf("sequence %d after %d: gap %v, want %v", r.ID.Sequence, r.Previous, c.Gap, want)
		}
		return r
	}
	expect(true, after(2, 1))
	one := expect(false, after(1, 0))
	expect(false, after(3, 2))    // claimed counts as seen
	expect(true, after(2000, 50)) // in another page
	expect(false, after(2001, 3))
	c := h.begin(nil, after(4000, 2001), after(4001, 4000), after(6000, 4001), after(6001, 5999))
	for i, want := range []bool{false, false, false, true} {
		if c[i].Gap != want {
			t.errorf("item %d of a batch: gap %v, want %v", i, c[i].Gap, want)
		}
	}
	h.finish(nil, replay.Released, one)
	expect(true, after(4, 1)) // given back: not seen any more
	one = again(one)
	h.handled(one)
	expect(false, after(5, 1))
	h.passFolding()
	expect(false, after(6, 1))
	parked := expect(false, after(7, 6))
	h.finish(nil, replay.Parked, parked)
	expect(false, after(8, 7))
}

// settling returns a message that settles the stream up to the one before it.
func settling(id replay.Identity, n uint64) replay.Request {
	r := at(id, n)
	r.Settled = n - 1
	return r
}

func missing(t *trial) {
	h := t.handle()
	id := t.young("s")
	h.handled(settling(id, 1), settling(id, 2))
	h.missing(id)
	t.advance(time.Minute)
	r := settling(id, 10)
	r.Settled = 8
	h.begin(nil, r)
	since := time.Now()
	t.advance(time.Hour)
	a := h.missing(id, 3, 4, 5, 6, 7, 8)
	for _, m := range a.Missing {
		if d := m.Since.Sub(since).Abs(); d > time.Second || m.ReportedLate || m.ReportedMissing {
			t.errorf("%+v, want %v", m, since)
		}
	}
	h.handled(at(id, 5))
	h.missing(id, 3, 4, 6, 7, 8)
	h.handled(settling(id, 5000))
	if a := h.account(id); a.Settled != 4999 || a.Start != 1 {
		t.errorf("start %d, settled %d", a.Start, a.Settled)
	}
	h.passFolding()
	a = h.account(id)
	n := uint64(0)
	for _, m := range a.Missing {
		n += m.Range.Last - m.Range.First + 1
		// Only 3 to 8 were settled by then.
		if early := m.Range.First < 9; early != (m.Since.Sub(since).Abs() <= time.Second) {
			t.errorf("after folding: %+v, and 3 to 8 since %v", m, since)
		}
	}
	if n != 5+4990 && n != 5+4991 { // 10 is claimed, or was, long ago
		t.errorf("%d are missing", n)
	}
}

// missingReleased: what was given back, or whose receiver is gone, is missing
// until it is handled or parked.
func missingReleased(t *trial) {
	h := t.handle()
	id := t.young("s")
	one, two, three := settling(id, 1), settling(id, 2), settling(id, 3)
	h.begin(nil, one, two, three)
	h.handled(settling(id, 4))
	h.missing(id)
	t.advance(10 * time.Second)
	h.finish(nil, replay.Released, one)
	released := time.Now()
	a := h.missing(id, 1)
	if d := a.Missing[0].Since.Sub(released).Abs(); d > time.Second {
		t.errorf("missing since %v, want %v", a.Missing[0].Since, released)
	}
	h.finish(nil, replay.Parked, two)
	h.missing(id, 1)
	h.handled(again(one))
	h.missing(id)
	if !t.o.Observes {
		t.advance(2 * lease)
		h.missing(id, 3)
	}
	h.finish(nil, replay.Consumed, three)
	h.missing(id)
	h.passFolding()
	h.missing(id)
	for range 18 { // parked is final, also when its record is gone
		h.pass(1)
	}
	if a := h.account(id); a != nil && len(a.Missing) > 0 {
		t.errorf("missing after a long time: %+v", a.Missing)
	}
}

// accountingStart: a stream that is younger than the store is accounted for from
// its first message.
func accountingStart(t *trial) {
	h := t.handle()
	id := t.young("s")
	h.handled(settling(id, 4))
	h.missing(id, 1, 2, 3)
}

// accountingMiddle: of an older stream only what comes after the first message
// that was seen is accounted for.
func accountingMiddle(t *trial) {
	h := t.handle()
	id := t.stream("s", time.Now().Add(-time.Hour))
	h.handled(settling(id, 40))
	h.missing(id)
	h.handled(settling(id, 43), at(id, 38))
	h.missing(id, 41, 42)
	near := t.stream("s", time.Now()) // within the skew of the birth
	h.handled(settling(near, 4))
	h.missing(near)
}

func voidRanges(t *trial) {
	h := t.handle()
	id := t.young("s")
	r := settling(id, 20)
	r.Void = []replay.Range{{First: 2, Last: 2}, {First: 5, Last: 15}}
	h.handled(r)
	h.missing(id, 1, 3, 4, 16, 17, 18, 19)
	h.passFolding()
	h.missing(id, 1, 3, 4, 16, 17, 18, 19)
	h.handled(at(id, 5)) // the broker had stored it after all
	stale := at(id, 3)
	stale.Now = stale.FreshUntil.Add(time.Hour)
	h.begin(replay.ErrNotFresh, stale) // rejected, and so not missing
	h.missing(id, 1, 4, 16, 17, 18, 19)
	h.note(2, replay.NoteAccepted, id, 16, 17)
	h.note(0, replay.NoteAccepted, id, 16, 17)
	h.missing(id, 1, 4, 18, 19)
	h.handled(at(id, 16)) // accepted, and yet it comes
	h.passFolding()
	h.missing(id, 1, 4, 18, 19)
}

func implausible(t *trial) {
	h := t.handle()
	id := t.young("s")
	h.handled(settling(id, 2_000_000))
	a := h.account(id)
	if a == nil || !a.Implausible || len(a.Missing) > 0 {
		t.fatalf("%+v, want an implausible account", a)
	}
	h.note(1_999_000, replay.NoteAccepted, id, 1, 1_999_000)
	if a := h.account(id); a.Implausible {
		t.errorf("still implausible")
	}
}

// endOfAStream: a sender chooses its sequences. The last one that there is harms neither its stream nor
// those of others.
func endOfAStream(t *trial) {
	h := t.handle()
	end, other := t.young("s"), t.young("other")
	h.handled(settling(other, 4))
	h.handled(at(end, replay.MaxSequence))
	for n := range uint64(2) {
		if a := h.account(end); a == nil || a.Consumed != 1 || len(a.Missing) > 0 {
			t.fatalf("%+v, want one consumed and none missing", a)
		}
		h.missing(other, 1, 2, 3)
		h.begin(nil, at(end, replay.MaxSequence-1-n)) // in use, before and after it was folded
		h.passFolding()
	}
}

// notes: what was reported is kept, so that one receiver reports it.
func notes(t *trial) {
	h := t.handle()
	id := t.young("s")
	h.note(0, replay.NoteLate, id, 1, 3) // not held
	h.handled(settling(id, 8))
	h.note(3, replay.NoteLate, id, 2, 4)
	h.note(1, replay.NoteLate, id, 3, 5)
	h.note(0, replay.NoteLate, id, 2, 5)
	h.note(2, replay.NoteMissing, id, 2, 3)
	check := func() {
		a := h.missing(id, 1, 2, 3, 4, 5, 6, 7)
		for _, m := range a.Missing {
			if late := m.Range.First >= 2 && m.Range.Last <= 5; late != m.ReportedLate {
				t.errorf("%+v: reported late, want %v", m, late)
			}
			if gone := m.Range.First >= 2 && m.Range.Last <= 3; gone != m.ReportedMissing {
				t.errorf("%+v: reported missing, want %v", m, gone)
			}
		}
	}
	check()
	h.passFolding()
	check()
	got, err := h.s.Note(t.ctx, group, []replay.Note{{Sender: "s", Stream: id.Stream, Range: replay.Range{First: 2, Last: 1}, Kind: replay.NoteLate}})
	if err != nil || got[0].Err == nil {
		t.errorf("a range that descends: %+v, %v", got, err)
	}
}
