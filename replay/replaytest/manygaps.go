package replaytest

import (
	"time"

	"github.com/queue-runtime/queue/replay"
)

// manyRejected: a receiver whose clock is ahead rejects much of what others would handle. A
// message that the broker drops meanwhile is missing all the same.
func manyRejected(t *trial) {
	// In turns with those that are handled, no other is missing; with many of them before the
	// first that is handled of their pages, others may be.
	for _, turns := range []uint64{10, 750} {
		h := t.handle()
		id := t.young("s")
		h.handled(settling(id, 1))
		for n := uint64(3); n < 3003; n += 2 * turns {
			var good, late []replay.Request
			for k := n; k < n+2*turns; k += 2 {
				good = append(good, settling(id, k))
				stale := at(id, k+1)
				stale.Now = stale.FreshUntil.Add(time.Second)
				late = append(late, stale)
			}
			if turns == 10 {
				h.handled(good[:1]...)
				good = good[1:]
			}
			for len(late) > 0 {
				part := min(len(late), replay.MaxBatch)
				h.begin(replay.ErrNotFresh, late[:part]...)
				late = late[part:]
			}
			for len(good) > 0 {
				part := min(len(good), replay.MaxBatch)
				h.handled(good[:part]...)
				good = good[part:]
			}
		}
		check := func() {
			a := h.account(id)
			if a.Start != 1 || a.MissingForgotten != 0 || len(a.Missing) == 0 || a.Missing[0].Range.First != 2 || turns == 10 && len(a.Missing) != 1 {
				t.errorf("%d in turn: %d missing are forgotten and %d listed, from %v; want 2", turns, a.MissingForgotten, len(a.Missing), a.Missing[:min(1, len(a.Missing))])
			}
		}
		check()
		h.passFolding()
		check()
	}
}

// manyGivenBack: retries of many single messages are not missing, however long they wait.
func manyGivenBack(t *trial) {
	h := t.handle()
	id := t.young("s")
	var back []replay.Request
	for n := uint64(1); n < 3000; n += 200 {
		var good, bad []replay.Request
		for k := n; k < min(n+200, 3000); k++ {
			if k%2 == 0 {
				bad = append(bad, settling(id, k))
			} else {
				good = append(good, settling(id, k))
			}
		}
		h.begin(nil, bad...)
		h.finish(nil, replay.Released, bad...)
		h.handled(good...)
		back = append(back, bad...)
	}
	h.passFolding()
	a := h.account(id)
	if a.Start != 1 || a.MissingForgotten != 0 {
		t.errorf("start %d, %d missing are forgotten", a.Start, a.MissingForgotten)
	}
	for i := range back {
		back[i] = again(back[i])
	}
	for len(back) > 0 {
		n := min(100, len(back))
		h.handled(back[:n]...)
		back = back[n:]
	}
	h.missing(id)
	h.passFolding()
	if a := h.missing(id); a.Start != 1 || a.MissingForgotten != 0 {
		t.errorf("handled: start %d, %d missing are forgotten", a.Start, a.MissingForgotten)
	}
}

// manyVoid: sends that failed are not missing, however many there are in a stream whose
// intervals take no more gaps, and whose pages stay because of dead letters.
func manyVoid(t *trial) {
	h := t.handle()
	id := t.young("s")
	const back, last = 2400, 6000 // every third up to back is given back
	for n := uint64(1); n < last; n += 200 {
		var good, dead, bad []replay.Request
		for k := n; k < n+200; k++ {
			r := settling(id, k)
			switch {
			case k <= back && k%3 == 0:
				bad = append(bad, r)
				continue
			case k > back && k%2 == 0:
				continue // void
			case k > back+1:
				r.Void = []replay.Range{{First: k - 1, Last: k - 1}}
			}
			if k%100 == 51 {
				dead = append(dead, r)
			} else {
				good = append(good, r)
			}
		}
		if len(bad) > 0 {
			h.begin(nil, bad...)
			h.finish(nil, replay.Released, bad...)
		}
		h.begin(nil, dead...)
		h.finish(nil, replay.Parked, dead...)
		h.handled(good...)
		if n%1000 == 1 {
			h.passFolding()
		}
	}
	check := func(when string) {
		a := h.account(id)
		for _, m := range a.Missing {
			if r := m.Range; r.First != r.Last || r.First%3 > 0 || r.Last > back {
				t.errorf("%s: %v is missing, which was not given back", when, r)
				break
			}
		}
		// If pages are small, or folded late because calls fail, there are more gaps than
		// a stream lists: the oldest are counted.
		if all := uint64(len(a.Missing)) + a.MissingForgotten; all < back/3 {
			t.errorf("%s: %d are missing, want the %d that were given back", when, all, back/3)
		}
	}
	check("at the end")
	h.passFolding()
	check("folded")
}

// manyMissing: of more losses than a stream lists the oldest are counted, until an operator
// accepts them.
func manyMissing(t *trial) {
	h := t.handle()
	id := t.young("s")
	for n := uint64(1); n < 3000; n += 200 {
		var good []replay.Request
		for k := n; k < n+200; k += 2 {
			good = append(good, settling(id, k))
		}
		h.handled(good...)
	}
	h.passFolding()
	a := h.account(id)
	listed := uint64(0)
	for _, m := range a.Missing {
		listed += m.Range.Last - m.Range.First + 1
	}
	// Some that were handled may count as forgotten: their pages were folded later.
	if a.MissingForgotten == 0 || listed+a.MissingForgotten < 1499 {
		t.errorf("%d missing are listed and %d forgotten, want 1499 together at least", listed, a.MissingForgotten)
	}
	h.note(1, replay.NoteAccepted, id, 2, 2) // one of them: it is not known which are meant
	if b := h.account(id); b.MissingForgotten != a.MissingForgotten {
		t.errorf("%d are forgotten, want %d as before", b.MissingForgotten, a.MissingForgotten)
	}
	h.note(a.Start-2, replay.NoteAccepted, id, 1, a.Start-1)
	h.passFolding()
	b := h.account(id)
	if b.MissingForgotten != 0 || b.Start != a.Start || len(b.Missing) != len(a.Missing) {
		t.errorf("start %d, %d are forgotten and %d listed after they were accepted; want %d, none and %d", b.Start, b.MissingForgotten, len(b.Missing), a.Start, len(a.Missing))
	}
}
