package replaystate

import (
	"math/bits"
	"slices"
)

// MaxSpan bounds the sequences of one page. A span is a multiple of 64.
const MaxSpan = 1024

// Page covers the sequences Index*span + 1 to (Index+1)*span of a stream.
type Page struct {
	Index uint64
	// Mark judges what the page does not know: it is refused unless it was
	// sealed later.
	Mark int64
	// Newest is the newest SealedAt among the consumed sequences.
	Newest int64
	// Settled is the largest that a message of this page carried.
	Settled uint64
	// Dirty: changed since it was loaded. New: not stored yet.
	Dirty, New bool

	bits    []uint64 // consumed
	quiet   int64    // when every recent entry may fold; 0 after a fold, or retired
	records []record // ascending by offset
	recents []recent // in the order of their consumption
	excused Ranges   // accounted for without being consumed; any sequence of the stream
	steps   []Step   // when Settled grew
}

// status is the state of a record. What is consumed has a bit and no record.
type status uint8

const (
	claimed status = iota + 1
	released
	parked
)

// record is a sequence that was claimed and is not consumed.
type record struct {
	offset    uint16
	status    status
	resealed  bool
	gap       bool   // Claim.Gap of the last claim
	beat      uint32 // grows with each claim and renewal
	token     [16]byte
	tag       [8]byte
	firstSeen int64 // the receiver's clock at the first claim
	sealedAt  int64
	lease     int64 // length of the lease of the last claim or renewal
	changed   int64 // when the status, or the lease, last changed
	keep      int64 // until when the record is kept, a live lease aside
}

// recent is a sequence that was consumed recently. Eight bytes of the token are
// enough to tell a repeated Finish from one of another claim: a mistake changes
// Done into Handled or back, which both say that the message is consumed.
type recent struct {
	offset   uint16
	resealed bool
	tag      [8]byte
	token    [8]byte
}

// Step says that a message that arrived at At settled the stream up to Settled.
type Step struct {
	Settled uint64
	At      int64
}

// IndexOf returns the page of a sequence, which is above 0, for that span.
func IndexOf(sequence uint64, span int) uint64 { return (sequence - 1) / uint64(span) } //nolint:gosec // G115: a span is at most MaxSpan

// span returns the number of sequences that the page covers.
func (p *Page) span() int { return len(p.bits) * 64 }

// first returns the first sequence of the page.
func (p *Page) first() uint64 { return p.Index*uint64(p.span()) + 1 } //nolint:gosec // G115: at most MaxSpan

// offset returns the place of a sequence that belongs to the page.
func (p *Page) offset(sequence uint64) uint16 { return uint16(sequence - p.first()) } //nolint:gosec // G115: below MaxSpan

// covers returns the sequences of the page. The last page of a stream has a place more than there
// are sequences.
func (p *Page) covers() Range {
	return Range{p.first(), min(p.first()+uint64(p.span())-1, maxSequence)} //nolint:gosec // G115
}

func (p *Page) consumed(offset uint16) bool { return p.bits[offset/64]>>(offset%64)&1 == 1 }

// setConsumed sets the bits of r, which lies within the page.
func (p *Page) setConsumed(r Range) {
	for n := r.First; n <= r.Last; n++ {
		o := p.offset(n)
		p.bits[o/64] |= 1 << (o % 64)
	}
}

// runs calls yield with each run of consumed sequences, ascending.
func (p *Page) runs(yield func(Range)) {
	base := p.first()
	for o := 0; o < p.span(); {
		w := p.bits[o/64] >> (o % 64)
		if w == 0 {
			o = o/64*64 + 64
			continue
		}
		o += bits.TrailingZeros64(w)
		start := o
		for o < p.span() {
			w := ^(p.bits[o/64] >> (o % 64)) // zeros shifted in count as not consumed
			if n := bits.TrailingZeros64(w); n < 64-o%64 {
				o += n
				break
			}
			o = o/64*64 + 64
		}
		yield(Range{base + uint64(start), base + uint64(o) - 1}) //nolint:gosec // G115: below MaxSpan
	}
}

// find returns the record of an offset, or where to insert it.
func (p *Page) find(offset uint16) (int, bool) {
	return slices.BinarySearchFunc(p.records, offset, func(r record, o uint16) int { return int(r.offset) - int(o) })
}

// recent returns the recent entry of an offset, nil for none. The newest stand at
// the end and are asked for most often.
func (p *Page) recent(offset uint16) *recent {
	for i := len(p.recents) - 1; i >= 0; i-- {
		if p.recents[i].offset == offset {
			return &p.recents[i]
		}
	}
	return nil
}

// open reports whether the page has a record that may end as consumed or missing: one that is
// claimed, or not excused, as what is parked is.
func (p *Page) open() bool {
	return slices.ContainsFunc(p.records, func(r record) bool {
		return r.status == claimed || !p.excused.Has(p.first()+uint64(r.offset))
	})
}

// retired is quiet of a page that Retire was called of: long ago, so that it is due.
const retired = 1

// known reports whether the head knows all that may count of the page: it is new, or was folded
// without open records, and no claim of it has ended since. Or it is retired, and its fold is under way.
func (p *Page) known() bool { return p.quiet <= retired && !p.open() }

// Records returns how many sequences are claimed, released or parked.
func (p *Page) Records() int { return len(p.records) }

// Recents returns how many consumed sequences still have their tags.
func (p *Page) Recents() int { return len(p.recents) }

// Foldable reports whether the page can be folded: all of its recent entries are
// past their time.
func (p *Page) Foldable(now int64) bool { return now >= p.quiet }

// Due returns when the page has to be looked at next: when it can be folded, or,
// if it was and the head has learned all since, when the first of its records is past
// its time. It is 0 if there is nothing to wait for.
func (p *Page) Due() int64 {
	if p.quiet > 0 || len(p.steps) > 0 {
		return p.quiet
	}
	due := int64(0)
	for i := range p.records {
		if t := p.records[i].end(); due == 0 || t < due {
			due = t
		}
	}
	return due
}

// Next returns when a store that keeps the page as it is now looks at it again: when it is due,
// and not at once. It is in whole minutes, so that a page that is in use does not change its place
// in an index with each call.
func (p *Page) Next(now int64) int64 {
	const minute = 60_000
	return (max(p.Due(), now+minRecent) + minute - 1) / minute * minute
}

// Untagged is added to the turn of a page that has no tags: the sum is exact in a float64, and no
// time is as large.
const Untagged = 1 << 52

// Turn returns [Page.Next] for the index of a store, and [Untagged] more if the page has no tags.
// So the pages that are folded early where there are too many tags are the first of the index,
// however many others are due before them.
func (p *Page) Turn(now int64) int64 {
	if p.Recents() == 0 {
		return p.Next(now) + Untagged
	}
	return p.Next(now)
}

// end is when the record may go.
func (r *record) end() int64 {
	if r.status == claimed {
		return max(r.keep, r.changed+r.lease)
	}
	return r.keep
}

// Expire removes records that are past their time. What they were about is
// unknown again, and judged by its freshness and the mark.
func (p *Page) Expire(now int64) {
	for i := len(p.records) - 1; i >= 0; i-- {
		if now >= p.records[i].end() {
			p.remove(i)
			p.Dirty = true
		}
	}
}

// Retire drops the tags of a page that is about to be folded, and nothing that the head has not
// taken over. It is known from then on, so that the next message holds it apart before it counts, and
// due until it is folded.
func (p *Page) Retire() { p.recents, p.quiet, p.Dirty = nil, retired, true }

// Folded drops what the head has taken over, and keeps what is excused of its own sequences
// while it has records: the head may not have taken that. It reports whether nothing is left,
// so that the page can go.
func (p *Page) Folded() (empty bool) {
	p.recents, p.steps, p.quiet, p.Dirty = nil, nil, 0, true
	if len(p.records) == 0 {
		p.excused = nil
		return true
	}
	p.excused = p.excused.Common(Ranges{p.covers()})
	return false
}

// NewPage makes a page of a stream from its head. h nil means that the stream is
// not held, and g judges.
func NewPage(g *Group, h *Head, index uint64, span int) *Page {
	p := &Page{Index: index, bits: make([]uint64, span/64), New: true}
	if h == nil {
		p.Mark = g.Mark
		return p
	}
	p.Mark = h.Mark
	all := p.covers()
	for i := h.search(all.First); i < len(h.Intervals) && h.Intervals[i].First <= all.Last; i++ {
		iv := h.Intervals[i]
		p.setConsumed(Range{max(iv.First, all.First), min(iv.Last, all.Last)})
		p.Newest = max(p.Newest, iv.Newest)
	}
	p.excused = h.Excused.Common(Ranges{all}) // the head may have no room for it one day
	return p
}

// Copy returns a copy for Count: without the tags, which it does not need.
func (p *Page) Copy() *Page {
	c := *p
	c.bits, c.records, c.recents = slices.Clone(p.bits), slices.Clone(p.records), nil
	c.excused, c.steps = slices.Clone(p.excused), slices.Clone(p.steps)
	return &c
}

// maxSteps bounds the steps of a page: with more, neighbours become one.
const maxSteps = 64

// maxExcused bounds the excused ranges of a page or head. Senders repeat a void
// range in at least 64 messages, and at most 8 are outstanding, so an honest one
// stays far below.
const maxExcused = 1024

// settle takes over what a message says about its stream. What is void outside of the page goes to
// the head at once: the page may be in use for hours after the one that it is about was folded.
func (p *Page) settle(e *Env, s Stream, settled uint64, void []Range) {
	own, outside := p.covers(), Ranges(nil)
	for _, r := range void {
		if p.excused.Within(r) == r.Len() {
			continue
		}
		p.excuse(r)
		if r.First < own.First || r.Last > own.Last {
			outside = append(outside, r)
		}
	}
	excuse(s, outside...)
	if settled <= p.Settled {
		return
	}
	p.Settled, p.Dirty = settled, true
	p.steps = addStep(p.steps, Step{settled, e.Now})
}

// excuse accounts in the head of a stream for sequences that are not consumed.
func excuse(s Stream, all ...Range) {
	if len(all) == 0 {
		return // a head may have to be loaded
	}
	h := s.Head()
	if h == nil {
		return
	}
	for _, r := range all {
		if h.Excused.Within(r) != r.Len() {
			h.excuse(r)
		}
	}
	h.bound()
}

// excuse accounts for sequences that are not consumed.
func (p *Page) excuse(r Range) {
	p.excused, p.Dirty = p.excused.Add(r), true
	if len(p.excused) > maxExcused {
		p.excused = slices.Delete(p.excused, 0, 1)
	}
}

// addStep appends a step that settles more than the last one. What is settled
// within one second counts as settled at the end of it, and when there are more
// than maxSteps two neighbours become one: a report may come later for it, never
// earlier.
func addStep(steps []Step, s Step) []Step {
	n := len(steps)
	if n > 0 && s.At < steps[n-1].At {
		s.At = steps[n-1].At // the clock was set back
	}
	if n > 0 && s.At/1000 == steps[n-1].At/1000 {
		steps[n-1] = s
		return steps
	}
	return thin(append(steps, s), maxSteps)
}

// thin joins the steps that lie closest in time until there are at most n. To drop the oldest in
// place of that would make what they settle younger with each new step: a stream that goes on
// losing messages would never have one that is missing for long enough to be reported.
func thin(steps []Step, n int) []Step {
	for len(steps) > n {
		closest := 0
		for i := 1; i+1 < len(steps); i++ {
			if steps[i+1].At-steps[i].At < steps[closest+1].At-steps[closest].At {
				closest = i
			}
		}
		steps = slices.Delete(steps, closest, closest+1)
	}
	return steps
}
