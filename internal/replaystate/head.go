package replaystate

import "slices"

// MaxIntervals bounds the intervals of a stream.
const MaxIntervals = 1024

// Interval is a run of consumed sequences.
type Interval struct {
	First, Last uint64
	// Newest is the newest SealedAt of the pages that the run was folded from.
	Newest int64
}

// Head is what is known of a stream outside of its pages.
type Head struct {
	// Mark is the newest SealedAt that was forgotten of this stream, and at
	// least the group's mark when the stream was made: it may have been held
	// before.
	Mark int64
	// Newest is the newest SealedAt of the stream, for its retention.
	Newest int64
	// Start is the first sequence that is accounted for.
	Start uint64
	// Settled is the largest that a folded page carried.
	Settled uint64
	// Lost counts missing sequences that are below Start now because the
	// intervals around them were forgotten.
	Lost uint64
	// Intervals are ascending; they neither overlap nor touch.
	Intervals []Interval
	// Excused are sequences that are accounted for without being consumed.
	Excused Ranges
	// Late and Missing were reported as such.
	Late, Missing Ranges
	// Apart are the sequences that are accounted for of pages that know more than the head: those
	// that are in use, and those that were folded and have open records. See Hold and Fold.
	Apart Ranges
	Steps []Step
	// Dirty: changed since it was loaded. Held: Hold was called since, also if that changed nothing.
	Dirty, Held bool
}

// NewHead makes the head of a stream whose first message is r. The accounting
// starts at 1 if the whole stream is younger than the store and than what the
// group has dropped, and at the first sequence seen otherwise.
func NewHead(e *Env, r *Request) *Head {
	h := &Head{Mark: e.Group.Mark, Newest: r.SealedAt, Start: r.Sequence, Dirty: true}
	if opened := r.Key.Opened(); opened > e.Birth+e.Group.Skew && opened > e.Group.Mark {
		h.Start = 1
	}
	return h
}

// NewestConsumed returns the newest SealedAt in the intervals, 0 for none.
func (h *Head) NewestConsumed() (newest int64) {
	for _, v := range h.Intervals {
		newest = max(newest, v.Newest)
	}
	return newest
}

// search returns the index of the first interval that ends at or after n.
func (h *Head) search(n uint64) int {
	i, _ := slices.BinarySearchFunc(h.Intervals, n, func(v Interval, n uint64) int {
		if v.Last < n {
			return -1
		}
		return 1
	})
	return i
}

// has reports whether an interval contains n.
func (h *Head) has(n uint64) bool {
	i := h.search(n)
	return i < len(h.Intervals) && h.Intervals[i].First <= n
}

// add adds a run of consumed sequences.
func (h *Head) add(v Interval) {
	i := h.search(v.First - 1) // also one that touches v
	j := i
	for j < len(h.Intervals) && h.Intervals[j].First <= v.Last+1 {
		w := h.Intervals[j]
		v = Interval{min(v.First, w.First), max(v.Last, w.Last), max(v.Newest, w.Newest)}
		j++
	}
	h.Intervals = slices.Replace(h.Intervals, i, j, v)
	h.Dirty = true
}

// excuse accounts for sequences that are not consumed.
func (h *Head) excuse(r Range) {
	h.Excused, h.Dirty = h.Excused.Add(r), true
}

// bound closes gaps, and then forgets the oldest excused ranges, if there are too many. What
// is forgotten so may be reported as missing once more. The reverse would hide a loss: a head
// cannot tell what is missing among them, because pages that are not folded know more.
func (h *Head) bound() {
	if len(h.Excused) <= maxExcused {
		return
	}
	h.Excused = h.Excused.Common(h.unknown(maxSequence)) // no account needs what is below Start
	for _, n := range [...]int{len(h.Intervals) / 2, len(h.Intervals)} {
		if len(h.Excused) <= maxExcused {
			return
		}
		h.absorb(n)
		h.Excused = h.Excused.Common(h.unknown(maxSequence))
	}
	h.Excused = slices.Delete(h.Excused, 0, max(0, len(h.Excused)-maxExcused))
}

// absorb has the oldest n intervals take in what is excused next to them, which counts as
// consumed then as with close. A gap that has losses, too, keeps them.
func (h *Head) absorb(n int) {
	out := h.Intervals[:0]
	for i, v := range h.Intervals {
		if i < n {
			if j := h.Excused.search(v.First - 1); j < len(h.Excused) && h.Excused[j].First < v.First && h.closable(h.Excused[j]) {
				v.First = h.Excused[j].First
			}
			if j := h.Excused.search(v.Last + 1); j < len(h.Excused) && h.Excused[j].First <= v.Last+1 && h.closable(h.Excused[j]) {
				v.Last = h.Excused[j].Last
			}
		}
		if k := len(out) - 1; k >= 0 && v.First <= out[k].Last+1 {
			out[k].Last, out[k].Newest = max(out[k].Last, v.Last), max(out[k].Newest, v.Newest)
			continue
		}
		out = append(out, v)
	}
	h.Intervals, h.Dirty = out, true
}

// roomyIntervals is how many intervals a head has room to spare with.
const roomyIntervals = MaxIntervals / 2

// maxApart bounds the ranges of pages apart. Beyond it the oldest count as missing: the
// reverse could hide a loss.
const maxApart = 4 * MaxIntervals

// Hold keeps a page apart that is about to know more than the head, because Start may pass its
// sequences before it is folded: neighbours that rest are folded while messages of it are tried
// again, or copies of them come, for hours.
func (h *Head) Hold(p *Page) {
	h.Held = true
	own := p.covers()
	own.First = max(own.First, h.Start)
	if own.First > own.Last || h.Apart.Within(own) == own.Len() {
		return
	}
	h.Apart, h.Dirty = h.Apart.Add(own), true
	h.boundApart()
}

func (h *Head) boundApart() {
	for len(h.Apart) > maxApart {
		r := h.Apart[0]
		h.Apart = slices.Delete(h.Apart, 0, 1)
		h.Lost += min(r.Last+1, max(h.Start, r.First)) - r.First
	}
}

// Fold takes over what a page knows about its stream. The page stays the truth
// for its sequences while it exists, so folding twice does no harm. One with open records stays
// apart: what is claimed or given back among its sequences is no loss. It keeps what is excused of
// them to itself, and without room to spare also what is consumed, because the gaps between would
// take the place of those that are losses.
func (h *Head) Fold(p *Page) {
	h.Steps = mergeSteps(h.Steps, p.steps)
	open, own := p.open(), p.covers()
	h.Newest = max(h.Newest, p.Newest)
	h.Settled, h.Dirty = max(h.Settled, p.Settled), true
	if !open || len(h.Intervals) < roomyIntervals {
		p.runs(func(r Range) { h.add(Interval{r.First, r.Last, p.Newest}) })
	}
	for _, r := range p.excused {
		h.excuse(r)
	}
	if open { // it keeps those of its own
		for _, r := range p.excused.Common(Ranges{own}) {
			h.Excused = h.Excused.Sub(r)
		}
	}
	switch {
	case open:
		h.Apart = h.Apart.Add(Range{max(own.First, h.Start), own.Last})
	case h.Apart.Within(own) > 0:
		if own.First < h.Start { // what is lost there was not counted when Start passed it
			h.Lost += h.missingApart(Range{own.First, min(own.Last, h.Start-1)})
		}
		h.Apart = h.Apart.Sub(own)
	}
}

// Tidy forgets what was sealed more than keep before time, and what there is too
// much of, and drops what serves nothing any more.
func (h *Head) Tidy(time, keep int64) {
	if len(h.Intervals) > MaxIntervals {
		h.close(len(h.Intervals) / 2)
	}
	n := max(0, len(h.Intervals)-MaxIntervals)
	for n < len(h.Intervals) && h.Intervals[n].Newest+keep < time {
		n++
	}
	if n > 0 {
		h.forget(n)
	}
	h.prune()
	h.bound()
	h.boundApart()
}

// closable reports whether all of r is excused and of no page apart. Such a page need not know
// itself what is excused: if that was in an interval it would be missing once the interval is forgotten.
func (h *Head) closable(r Range) bool {
	return h.Excused.Within(r) == r.Len() && h.Apart.Within(r) == 0
}

// close joins the oldest n intervals over gaps that are excused. What is in such a gap counts as
// consumed from then on, although its sender reported it as failed, or it was rejected or dead-lettered and
// not handled: it is told so, and a copy of it, also one that was resealed, is a replay. The alternative is to
// forget the intervals, and the mark would refuse all of the stream that is older and still to come.
func (h *Head) close(n int) {
	out := h.Intervals[:0]
	for i, v := range h.Intervals {
		if k := len(out) - 1; k >= 0 && i < n {
			if gap := (Range{out[k].Last + 1, v.First - 1}); h.closable(gap) {
				out[k].Last, out[k].Newest = v.Last, max(out[k].Newest, v.Newest)
				continue
			}
		}
		out = append(out, v)
	}
	h.Intervals, h.Dirty = out, true
}

// forget removes the first n intervals and raises the mark, so that what was in
// them is refused all the same.
func (h *Head) forget(n int) {
	last := h.Intervals[n-1].Last
	if last >= h.Start {
		gone, missing := Range{h.Start, last}, h.missing()
		h.Lost += missing.Within(gone) - missing.Common(h.Apart).Within(gone)
		h.Start = last + 1
	}
	for _, v := range h.Intervals[:n] {
		h.Mark = max(h.Mark, v.Newest)
	}
	h.Intervals, h.Dirty = slices.Delete(h.Intervals, 0, n), true
}

// prune drops excused ranges, notes and steps that nothing needs any more.
func (h *Head) prune() {
	unknown := h.unknown(maxSequence)
	h.Excused = h.Excused.Common(unknown)
	h.Late, h.Missing = trim(h.Late, unknown), trim(h.Missing, unknown)
	missing := h.missing()
	below := uint64(0)
	h.Steps = slices.DeleteFunc(h.Steps, func(s Step) bool {
		r := Range{below + 1, s.Settled}
		below = s.Settled
		return missing.Within(r) == 0
	})
	h.Steps = thin(h.Steps, MaxIntervals)
}

// trim cuts off from notes what is not unknown any more. What is between stays, so that they are
// not more than before.
func trim(notes, unknown Ranges) Ranges {
	out := notes[:0]
	for _, r := range notes {
		if c := unknown.Common(Ranges{r}); len(c) > 0 {
			out = append(out, Range{c[0].First, c[len(c)-1].Last})
		}
	}
	return out
}

// gaps returns the sequences of r that no interval has.
func (h *Head) gaps(r Range) Ranges { return h.appendGaps(make([]Range, 0, len(h.Intervals)+1), r) }

// appendGaps appends the sequences of r that no interval has.
func (h *Head) appendGaps(out Ranges, r Range) Ranges {
	next := r.First
	for i := h.search(r.First); i < len(h.Intervals) && h.Intervals[i].First <= r.Last; i++ {
		v := h.Intervals[i]
		if v.First > next {
			out = append(out, Range{next, v.First - 1})
		}
		next = max(next, v.Last+1)
	}
	if next <= r.Last {
		out = append(out, Range{next, r.Last})
	}
	return out
}

// unknown returns the sequences up to last that are accounted for, from Start on or as those of a
// page apart, and in no interval.
func (h *Head) unknown(last uint64) Ranges {
	out := Ranges(make([]Range, 0, len(h.Intervals)+len(h.Apart)+1))
	for _, r := range h.Apart {
		if r.First >= h.Start || r.First > last {
			break
		}
		out = h.appendGaps(out, Range{r.First, min(r.Last, h.Start-1, last)})
	}
	n := len(out)
	if h.Start <= last {
		out = h.appendGaps(out, Range{h.Start, last})
	}
	if n > 0 && n < len(out) && out[n-1].Last+1 == out[n].First {
		out[n].First = out[n-1].First
		out = slices.Delete(out, n-1, n)
	}
	return out
}

// missing returns what is settled, not excused and in no interval.
func (h *Head) missing() Ranges {
	return h.unknown(h.Settled).Without(h.Excused)
}

// missingApart counts what is missing of pages apart in r.
func (h *Head) missingApart(r Range) (n uint64) {
	for i := h.Apart.search(r.First); i < len(h.Apart) && h.Apart[i].First <= r.Last; i++ {
		a := h.Apart[i]
		n += h.appendGaps(nil, Range{max(a.First, r.First), min(a.Last, r.Last, h.Settled)}).Without(h.Excused).Count()
	}
	return n
}

// maxSequence is the largest sequence of a stream (qre1, Section 2.6).
const maxSequence = 1<<53 - 1

// mergeSteps joins two lists of steps: a sequence counts as settled at the
// earliest step that settles it.
func mergeSteps(a, b []Step) []Step {
	all := slices.Concat(a, b)
	slices.SortFunc(all, func(x, y Step) int {
		if x.At != y.At {
			return int(min(max(x.At-y.At, -1), 1))
		}
		return int(min(max(int64(x.Settled)-int64(y.Settled), -1), 1)) //nolint:gosec // G115: sequences are below 2^53
	})
	out := all[:0]
	for _, s := range all {
		if n := len(out); n > 0 && s.Settled <= out[n-1].Settled {
			continue
		}
		out = append(out, s)
	}
	return out
}

// Strip drops the tags of a page that is not due, in place of a fold for lack of room, and reports
// whether it did. It does so if the head has no room to spare for the gaps of the page: of a backlog
// that is delivered in any order, pages that are folded early are full of gaps, the head would forget
// what is older, and its mark would refuse what is still to be delivered there. The newest tag stays,
// so that the page is due, minRecent later than it was, behind those that still have their tags; if there
// is still no room then it is folded. One that is in use all the time is not put off beyond maxPutOff.
func (h *Head) Strip(p *Page, now int64) bool {
	runs := 0
	p.runs(func(Range) { runs++ })
	if p.Foldable(now) || len(p.recents) < 2 || runs < 2 || len(h.Intervals) < roomyIntervals {
		return false
	}
	p.recents, p.Dirty = slices.Clone(p.recents[len(p.recents)-1:]), true
	p.quiet = max(p.quiet, min(p.quiet+minRecent, now+maxPutOff))
	return true
}

// maxPutOff is how far from now a page is put off at most: behind all whose tags are kept for less.
const maxPutOff = 10 * minRecent

// Settle expires records of a page, and folds it into h if its time has come or if force
// is set, unless to strip it does; time and keep are as for Tidy. It reports whether nothing is
// left of the page, so that it can go.
func (h *Head) Settle(p *Page, now, time, keep int64, force bool) (empty bool) {
	p.Expire(now)
	p.Dirty = true // it is due at another time now
	if !p.Foldable(now) && (!force || h.Strip(p, now)) {
		return false
	}
	h.Fold(p)
	h.Tidy(time, keep)
	return p.Folded()
}
