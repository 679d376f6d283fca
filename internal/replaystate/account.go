package replaystate

import (
	"cmp"
	"slices"
)

// MaxMissing is how many sequences of a stream may be missing: more is taken for
// a sender that counts wrongly, and none is reported.
const MaxMissing = 1_000_000

// Missing is a run of sequences that are settled and were not seen.
type Missing struct {
	Range Range
	// Since is when the first message that settles them arrived, or when the
	// claim of one of them was given up, if that is later.
	Since int64
	// Late and Missing: already reported as such.
	Late, Missing bool
}

// Account is what is known of a stream.
type Account struct {
	Start, Settled uint64
	Newest         int64
	// Consumed counts the sequences that are remembered as consumed.
	Consumed uint64
	// Lost is as in Head.
	Lost uint64
	// Implausible: more than MaxMissing are missing; the list is empty.
	Implausible bool
	Missing     []Missing
}

// Count makes the account of a stream from its head and all of its pages. It collects what they
// hold, and sorts it once: an outage may leave very many messages to be tried again, and a sender may
// say of as many that they are void.
func Count(e *Env, k Key, h *Head, pages []*Page) Account {
	return gather(e, k, h, pages).count(h)
}

// pieces are what a head and its pages hold, in any order.
type pieces struct {
	newest            int64
	settled           uint64
	consumed, excused []Range
	steps             []Step
	given             []since // ascending
}

// gather collects the pieces of a stream. It changes nothing of it.
func gather(e *Env, k Key, h *Head, pages []*Page) *pieces {
	x := &pieces{newest: h.Newest, settled: h.Settled, excused: slices.Clone(h.Excused), steps: slices.Clone(h.Steps)}
	for _, v := range h.Intervals {
		x.consumed = append(x.consumed, Range{v.First, v.Last})
	}
	pages = slices.Clone(pages)
	slices.SortFunc(pages, func(a, b *Page) int { return cmp.Compare(a.Index, b.Index) })
	for _, p := range pages {
		x.newest, x.settled = max(x.newest, p.Newest), max(x.settled, p.Settled)
		p.runs(func(r Range) { x.consumed = append(x.consumed, r) })
		x.excused = append(x.excused, p.excused...)
		x.steps = append(x.steps, p.steps...)
		for i := range p.records {
			r := &p.records[i]
			n := p.first() + uint64(r.offset)
			if at, open := e.given(k, p, r); open {
				x.given = append(x.given, since{n, at})
			} else {
				x.excused = append(x.excused, Range{n, n})
			}
		}
	}
	return x
}

// count makes the account of the stream with that head as if all of its pages were folded, except
// that what is apart stays so: it is listed as long as its page is there.
func (x *pieces) count(h *Head) Account {
	sum := Head{Newest: x.newest, Start: h.Start, Settled: x.settled, Lost: h.Lost, Apart: h.Apart, Late: h.Late, Missing: h.Missing}
	consumed := union(x.consumed)
	sum.Excused, sum.Steps = union(x.excused), mergeSteps(x.steps, nil)
	sum.Intervals = make([]Interval, len(consumed))
	for i, r := range consumed {
		sum.Intervals[i] = Interval{First: r.First, Last: r.Last}
	}
	a := Account{Start: sum.Start, Settled: sum.Settled, Newest: sum.Newest, Lost: sum.Lost, Consumed: consumed.Count()}
	missing := sum.missing()
	if missing.Count() > MaxMissing {
		a.Implausible = true
		return a
	}
	a.Missing = later(sum.list(missing), x.given)
	return a
}

// since says from when on a sequence does not count as seen any more.
type since struct {
	sequence uint64
	at       int64
}

// given says since when a record does not count as seen any more: it was
// released, or its lease is over.
func (e *Env) given(k Key, p *Page, r *record) (since int64, open bool) {
	switch r.status {
	case released:
		return r.changed, !p.excused.Has(p.first() + uint64(r.offset))
	case claimed:
		until, live := e.live(k, p, r)
		return until, !live
	}
	return 0, false
}

// list splits the missing sequences by when they were settled and by what was
// reported of them.
func (h *Head) list(missing Ranges) []Missing {
	var out []Missing
	below := uint64(0)
	steps := h.Steps
	if n := len(steps); n == 0 || steps[n-1].Settled < h.Settled {
		// No step is kept for what nothing was missing of.
		at := h.Newest
		if n > 0 {
			at = steps[n-1].At
		}
		steps = append(slices.Clone(steps), Step{h.Settled, at})
	}
	for _, s := range steps {
		for _, r := range missing.Common(Ranges{{below + 1, s.Settled}}) {
			for _, part := range cut(r, h.Late, h.Missing) {
				out = append(out, Missing{
					Range: part, Since: s.At,
					Late: h.Late.Has(part.First), Missing: h.Missing.Has(part.First),
				})
			}
		}
		below = s.Settled
	}
	return out
}

// cut splits r so that each part lies wholly inside or outside of each set.
func cut(r Range, sets ...Ranges) []Range {
	parts := []Range{r}
	for _, s := range sets {
		var next []Range
		for _, p := range parts {
			next = append(append(next, s.Common(Ranges{p})...), Ranges{p}.Without(s)...)
		}
		parts = next
	}
	slices.SortFunc(parts, func(a, b Range) int {
		if a.First < b.First {
			return -1
		}
		return 1
	})
	return parts
}

// later gives missing sequences a later time. Both lists are ascending.
func later(all []Missing, given []since) []Missing {
	if len(given) == 0 {
		return all
	}
	out := make([]Missing, 0, len(all))
	for _, m := range all {
		for ; len(given) > 0 && given[0].sequence <= m.Range.Last; given = given[1:] {
			n := given[0].sequence
			if n < m.Range.First || given[0].at <= m.Since {
				continue
			}
			if n > m.Range.First {
				before := m
				before.Range.Last = n - 1
				out = append(out, before)
			}
			one := m
			one.Range, one.Since = Range{n, n}, given[0].at
			out = append(out, one)
			m.Range.First = n + 1
		}
		if m.Range.First <= m.Range.Last {
			out = append(out, m)
		}
	}
	return out
}

// Enter adds a note to the stream and returns for how many sequences it says
// something new. To accept all below Start accepts what is lost there, and nothing else
// below it: of pages apart a receiver may have some in hand, which may still be lost.
func Enter(h *Head, n *Note) uint64 {
	if n.Kind == NoteAccepted && n.Range.First == 1 && n.Range.Last+1 >= h.Start {
		return h.accept(n.Range)
	}
	set := &h.Excused
	switch n.Kind {
	case NoteLate:
		set = &h.Late
	case NoteMissing:
		set = &h.Missing
	}
	fresh := n.Range.Len() - set.Within(n.Range)
	if fresh == 0 {
		return 0
	}
	if n.Kind == NoteAccepted {
		h.excuseGaps(n.Range)
		return fresh
	}
	h.Dirty = true
	if *set = set.Add(n.Range); len(*set) > maxExcused {
		*set = h.join(*set)
		*set = slices.Delete(*set, 0, max(0, len(*set)-maxExcused))
	}
	return fresh
}

// accept accepts what is lost below Start, and what is unknown from there up to the last of r,
// which begins at 1.
func (h *Head) accept(r Range) (fresh uint64) {
	if h.Lost == 0 {
		r.First = h.Start
	}
	if r.First > r.Last {
		return 0
	}
	if fresh = r.Len() - h.Excused.Within(r); fresh > 0 || h.Lost > 0 {
		h.Lost, h.Dirty = 0, true
		h.excuseGaps(Range{h.Start, r.Last})
	}
	return fresh
}

// excuseGaps accounts for the sequences of r that are in no interval.
func (h *Head) excuseGaps(r Range) {
	for _, g := range h.gaps(r) {
		h.excuse(g)
	}
	h.bound()
}

// join joins notes between which nothing can be missing, also if it is settled: pages settle more
// than the head knows of. A note that is forgotten is reported again.
func (h *Head) join(notes Ranges) Ranges {
	missing := h.unknown(maxSequence).Without(h.Excused)
	out := notes[:0]
	for _, r := range notes {
		if k := len(out) - 1; k >= 0 && missing.Within(Range{out[k].Last + 1, r.First - 1}) == 0 {
			out[k].Last = r.Last
			continue
		}
		out = append(out, r)
	}
	return out
}
