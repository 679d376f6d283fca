package replaystate

import (
	"encoding/binary"
	"errors"
)

// The first byte of what is stored: the version of its encoding. All numbers
// behind it are varints of package encoding/binary; times are signed.
const (
	pageVersion   = 1
	headVersion   = 1
	groupVersion  = 1
	lossesVersion = 1
)

// ErrCorrupt: stored bytes are not what this package wrote, or a newer version
// wrote them.
var ErrCorrupt = errors.New("a stored page, head, group or loss is damaged or of a newer version")

// AppendPage appends the encoding of a page. Its index is not part of it.
func AppendPage(b []byte, p *Page) []byte {
	b = append(b, pageVersion)
	b = binary.AppendUvarint(b, uint64(len(p.bits)))
	b = binary.AppendVarint(b, p.Mark)
	b = binary.AppendVarint(b, p.Newest)
	b = binary.AppendUvarint(b, p.Settled)
	b = binary.AppendVarint(b, p.quiet)
	var runs Ranges
	p.runs(func(r Range) { runs = append(runs, Range{r.First - p.first() + 1, r.Last - p.first() + 1}) })
	b = appendRanges(b, runs)
	b = binary.AppendUvarint(b, uint64(len(p.records)))
	for i := range p.records {
		b = appendRecord(b, &p.records[i])
	}
	b = binary.AppendUvarint(b, uint64(len(p.recents)))
	for i := range p.recents {
		c := &p.recents[i]
		b = binary.AppendUvarint(b, uint64(c.offset)<<1|bit(c.resealed))
		b = append(append(b, c.tag[:]...), c.token[:]...)
	}
	return appendSteps(appendRanges(b, p.excused), p.steps)
}

func appendRecord(b []byte, r *record) []byte {
	b = binary.AppendUvarint(b, uint64(r.offset)<<4|uint64(r.status)<<2|bit(r.gap)<<1|bit(r.resealed))
	b = append(append(b, r.token[:]...), r.tag[:]...)
	b = binary.AppendUvarint(b, uint64(r.beat))
	b = binary.AppendVarint(b, r.firstSeen)
	b = binary.AppendVarint(b, r.sealedAt-r.firstSeen)
	b = binary.AppendVarint(b, r.lease)
	b = binary.AppendVarint(b, r.changed-r.firstSeen)
	return binary.AppendVarint(b, r.keep-r.changed)
}

func bit(set bool) uint64 {
	if set {
		return 1
	}
	return 0
}

// appendRanges encodes each range as its distance from the one before and its
// length.
func appendRanges(b []byte, s Ranges) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	last := uint64(0)
	for _, r := range s {
		b = binary.AppendUvarint(b, r.First-last)
		b = binary.AppendUvarint(b, r.Last-r.First)
		last = r.Last
	}
	return b
}

func appendSteps(b []byte, steps []Step) []byte {
	b = binary.AppendUvarint(b, uint64(len(steps)))
	last := Step{}
	for _, s := range steps {
		b = binary.AppendUvarint(b, s.Settled-last.Settled)
		b = binary.AppendVarint(b, s.At-last.At)
		last = s
	}
	return b
}

// AppendHead appends the encoding of a head.
func AppendHead(b []byte, h *Head) []byte {
	b = append(b, headVersion)
	b = binary.AppendVarint(b, h.Mark)
	b = binary.AppendVarint(b, h.Newest)
	b = binary.AppendUvarint(b, h.Start)
	b = binary.AppendUvarint(b, h.Settled)
	b = binary.AppendUvarint(b, h.Lost)
	b = binary.AppendUvarint(b, uint64(len(h.Intervals)))
	last, newest := uint64(0), h.Newest
	for _, v := range h.Intervals {
		b = binary.AppendUvarint(b, v.First-last)
		b = binary.AppendUvarint(b, v.Last-v.First)
		b = binary.AppendVarint(b, v.Newest-newest)
		last, newest = v.Last, v.Newest
	}
	for _, s := range [...]Ranges{h.Excused, h.Late, h.Missing, h.Apart} {
		b = appendRanges(b, s)
	}
	return appendSteps(b, h.Steps)
}

// AppendGroup appends the encoding of a group.
func AppendGroup(b []byte, g *Group) []byte {
	b = append(b, groupVersion)
	for _, n := range [...]int64{g.Mark, g.Newest, g.Reach, g.Skew} {
		b = binary.AppendVarint(b, n)
	}
	return appendKnownKeys(b, g.Keys)
}

// reader takes an encoding apart. After a failure everything reads as zero.
type reader struct {
	b      []byte
	failed bool
}

func (r *reader) fail() { r.b, r.failed = nil, true }

func (r *reader) err() error {
	if r.failed || len(r.b) > 0 {
		return ErrCorrupt
	}
	return nil
}

func (r *reader) version(want byte) { //nolint:unparam // each encoding has a version of its own
	if len(r.b) == 0 || r.b[0] != want {
		r.fail()
		return
	}
	r.b = r.b[1:]
}

func (r *reader) uint() uint64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *reader) int() int64 {
	n, size := binary.Varint(r.b)
	if size <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[size:]
	return n
}

// count reads the number of items that follow, each of at least one byte, so
// that no encoding asks for more memory than its own size justifies.
func (r *reader) count() int {
	n := r.uint()
	if n > uint64(len(r.b)) {
		r.fail()
		return 0
	}
	return int(n) //nolint:gosec // G115: at most the length of a slice
}

func (r *reader) bytes(to []byte) {
	if len(r.b) < len(to) {
		r.fail()
		return
	}
	r.b = r.b[copy(to, r.b):]
}

func (r *reader) ranges() Ranges {
	n := r.count()
	if n == 0 {
		return nil
	}
	s := make(Ranges, 0, n)
	last := uint64(0)
	for range n {
		gap, length := r.uint(), r.uint()
		next := Range{last + gap, last + gap + length}
		// Ranges neither overlap nor touch.
		if next.First < last+min(last, 1)+1 || next.Last < next.First || next.Last > maxSequence {
			r.fail()
			return nil
		}
		s, last = append(s, next), next.Last
	}
	return s
}

func (r *reader) steps() []Step {
	n := r.count()
	if n == 0 {
		return nil
	}
	steps := make([]Step, 0, n)
	last := Step{}
	for range n {
		last = Step{last.Settled + r.uint(), last.At + r.int()}
		steps = append(steps, last)
	}
	return steps
}

// DecodePage returns the page of that index.
func DecodePage(b []byte, index uint64, span int) (*Page, error) {
	r := &reader{b: b}
	r.version(pageVersion)
	if r.uint() != uint64(span/64) { //nolint:gosec // G115: a span is positive
		return nil, ErrCorrupt
	}
	p := &Page{Index: index, bits: make([]uint64, span/64)}
	p.Mark, p.Newest, p.Settled, p.quiet = r.int(), r.int(), r.uint(), r.int()
	for _, run := range r.ranges() {
		if run.Last > uint64(span) { //nolint:gosec // G115: a span is positive
			return nil, ErrCorrupt
		}
		p.setConsumed(Range{p.first() + run.First - 1, p.first() + run.Last - 1})
	}
	p.records = make([]record, r.count())
	next := 0
	for i := range p.records {
		p.records[i] = r.record()
		if o := int(p.records[i].offset); o < next || o >= span {
			return nil, ErrCorrupt
		}
		next = int(p.records[i].offset) + 1
	}
	p.recents = make([]recent, r.count())
	for i := range p.recents {
		c := &p.recents[i]
		o := r.uint()
		c.offset, c.resealed = uint16(o>>1), o&1 == 1 //nolint:gosec // G115: checked below
		r.bytes(c.tag[:])
		r.bytes(c.token[:])
		if o>>1 >= uint64(span) { //nolint:gosec // G115
			return nil, ErrCorrupt
		}
	}
	p.excused, p.steps = r.ranges(), r.steps()
	return p, r.err()
}

func (r *reader) record() (rec record) {
	o := r.uint()
	if o>>4 >= MaxSpan || o>>2&3 == 0 {
		r.fail()
		return rec
	}
	rec.offset, rec.status, rec.gap, rec.resealed = uint16(o>>4), status(o>>2&3), o>>1&1 == 1, o&1 == 1
	r.bytes(rec.token[:])
	r.bytes(rec.tag[:])
	rec.beat = uint32(r.uint()) //nolint:gosec // G115: a counter that may wrap
	rec.firstSeen = r.int()
	rec.sealedAt = rec.firstSeen + r.int()
	rec.lease = r.int()
	rec.changed = rec.firstSeen + r.int()
	rec.keep = rec.changed + r.int()
	return rec
}

// DecodeHead returns a head.
func DecodeHead(b []byte) (*Head, error) {
	r := &reader{b: b}
	r.version(headVersion)
	h := &Head{Mark: r.int(), Newest: r.int(), Start: r.uint(), Settled: r.uint(), Lost: r.uint()}
	last, newest := uint64(0), h.Newest
	n := r.count()
	h.Intervals = make([]Interval, 0, n)
	for range n {
		first := last + r.uint()
		v := Interval{First: first, Last: first + r.uint(), Newest: newest + r.int()}
		if v.First <= last || v.Last < v.First || v.Last > maxSequence {
			return nil, ErrCorrupt
		}
		h.Intervals = append(h.Intervals, v)
		last, newest = v.Last, v.Newest
	}
	h.Excused, h.Late, h.Missing, h.Apart = r.ranges(), r.ranges(), r.ranges(), r.ranges()
	h.Steps = r.steps()
	return h, r.err()
}

// DecodeGroup returns a group.
func DecodeGroup(b []byte) (*Group, error) {
	r := &reader{b: b}
	r.version(groupVersion)
	g := &Group{Mark: r.int(), Newest: r.int(), Reach: r.int(), Skew: r.int(), Keys: r.knownKeys()}
	return g, r.err()
}
