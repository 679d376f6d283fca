package replaystate

import "slices"

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

// Count makes the account of a stream from its head and all of its pages.
func Count(e *Env, k Key, h *Head, pages []*Page) Account {
	sum := *h // a copy that takes the pages over
	sum.Intervals, sum.Excused, sum.Apart = slices.Clone(h.Intervals), slices.Clone(h.Excused), slices.Clone(h.Apart)
	var given []record // by sequence: released, or claimed and over
	var at []uint64
	for _, p := range pages {
		sum.Fold(p)
		sum.take(p)
		for i := range p.records {
			r := &p.records[i]
			n := p.first() + uint64(r.offset)
			if since, open := e.given(k, p, r); open {
				r := *r
				r.changed = since
				given, at = append(given, r), append(at, n)
				continue
			}
			sum.excuse(Range{n, n})
		}
	}
	a := Account{Start: sum.Start, Settled: sum.Settled, Newest: sum.Newest, Lost: sum.Lost}
	for _, v := range sum.Intervals {
		a.Consumed += v.Last - v.First + 1
	}
	missing := sum.missing()
	if missing.Count() > MaxMissing {
		a.Implausible = true
		return a
	}
	a.Missing = sum.list(missing)
	for i, n := range at {
		a.Missing = later(a.Missing, n, given[i].changed)
	}
	return a
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
			inside := s.Common(Ranges{p})
			outside := Ranges{p}
			for _, q := range inside {
				outside = outside.Sub(q)
			}
			next = append(append(next, inside...), outside...)
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

// later gives one missing sequence a later time.
func later(all []Missing, n uint64, since int64) []Missing {
	for i, m := range all {
		if n < m.Range.First || n > m.Range.Last || since <= m.Since {
			continue
		}
		var parts []Missing
		for _, r := range []Range{{m.Range.First, n - 1}, {n, n}, {n + 1, m.Range.Last}} {
			if r.First <= r.Last {
				part := m
				part.Range = r
				if r.First == n {
					part.Since = since
				}
				parts = append(parts, part)
			}
		}
		return slices.Replace(all, i, i+1, parts...)
	}
	return all
}

// Enter adds a note to the stream and returns for how many sequences it says
// something new. To accept all below Start accepts what is lost there.
func Enter(h *Head, n *Note) uint64 {
	if n.Kind == NoteAccepted && h.Lost > 0 && n.Range.First == 1 && n.Range.Last+1 >= h.Start {
		h.Lost, h.Dirty = 0, true
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
	h.Dirty = true
	if n.Kind == NoteAccepted {
		for _, g := range h.gaps(n.Range) {
			h.excuse(g)
		}
		h.bound()
		return fresh
	}
	if *set = set.Add(n.Range); len(*set) > maxExcused {
		*set = slices.Delete(*set, 0, 1)
	}
	return fresh
}
