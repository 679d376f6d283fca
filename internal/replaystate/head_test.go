package replaystate

import (
	"maps"
	"reflect"
	"slices"
	"testing"
)

// clean is a copy without Dirty.
func clean(h *Head) Head {
	c := *h
	c.Dirty = false
	return c
}

// TestHeadAdds: runs that touch or overlap become one, with the newest of their times.
func TestHeadAdds(t *testing.T) {
	for name, c := range map[string]struct {
		add  Interval
		want []Interval
	}{
		"before all":     {Interval{1, 2, 9}, []Interval{{1, 2, 9}, {10, 19, 5}, {30, 39, 7}}},
		"between":        {Interval{25, 25, 9}, []Interval{{10, 19, 5}, {25, 25, 9}, {30, 39, 7}}},
		"after all":      {Interval{50, 51, 9}, []Interval{{10, 19, 5}, {30, 39, 7}, {50, 51, 9}}},
		"touches below":  {Interval{8, 9, 1}, []Interval{{8, 19, 5}, {30, 39, 7}}},
		"touches above":  {Interval{20, 21, 9}, []Interval{{10, 21, 9}, {30, 39, 7}}},
		"fills the gap":  {Interval{20, 29, 6}, []Interval{{10, 39, 7}}},
		"inside":         {Interval{12, 13, 6}, []Interval{{10, 19, 6}, {30, 39, 7}}},
		"around the two": {Interval{1, 99, 1}, []Interval{{1, 99, 7}}},
		"not quite":      {Interval{21, 28, 1}, []Interval{{10, 19, 5}, {21, 28, 1}, {30, 39, 7}}},
	} {
		h := &Head{Intervals: []Interval{{10, 19, 5}, {30, 39, 7}}}
		h.add(c.add)
		if !reflect.DeepEqual(h.Intervals, c.want) || !h.Dirty {
			t.Errorf("%s: %v, want %v", name, h.Intervals, c.want)
		}
	}
	h := &Head{Intervals: []Interval{{10, 19, 5}, {30, 39, 7}, {50, 59, 6}}}
	if h.NewestConsumed() != 7 || (&Head{}).NewestConsumed() != 0 {
		t.Errorf("the newest is %d, want 7", h.NewestConsumed())
	}
	for n, want := range map[uint64]bool{9: false, 10: true, 19: true, 20: false, 29: false, 30: true, 59: true, 60: false} {
		if h.has(n) != want {
			t.Errorf("it has %d: %v", n, !want)
		}
	}
}

// TestHeadFolds: the head takes over what its page knows, and twice does no harm.
func TestHeadFolds(t *testing.T) {
	p := NewPage(&Group{}, nil, 1, 64)
	p.setConsumed(Range{65, 70})
	p.setConsumed(Range{128, 128})
	p.Newest, p.Settled = 50, 99
	p.excuse(Range{71, 72})
	p.steps = []Step{{99, 7}}
	h := &Head{Newest: 40, Settled: 64, Start: 1, Intervals: []Interval{{60, 64, 30}}, Steps: []Step{{64, 3}}}
	want := Head{Newest: 50, Settled: 99, Start: 1, Intervals: []Interval{{60, 70, 50}, {128, 128, 50}}, Excused: Ranges{{71, 72}}, Steps: []Step{{64, 3}, {99, 7}}}
	for range 2 {
		h.Dirty = false
		h.Fold(p)
		if !reflect.DeepEqual(clean(h), want) || !h.Dirty {
			t.Errorf("%+v, want %+v", h, want)
		}
	}
	h.Newest, h.Settled = 60, 200
	if h.Fold(p); h.Newest != 60 || h.Settled != 200 {
		t.Errorf("an older page sets the head back: %+v", h)
	}
}

// TestSettle: a page is folded when its time has come, or by force, and not before: until then a
// copy of what it consumed is told from another message by its tag.
func TestSettle(t *testing.T) {
	for name, c := range map[string]struct {
		before func(*bench)
		at     int64 // from when the page can be folded
		force  bool
		folds  bool
		empty  bool
	}{
		"before its time":              {func(*bench) {}, -1, false, false, false},
		"at its time":                  {func(*bench) {}, 0, false, true, true},
		"before its time, by force":    {func(*bench) {}, -1, true, true, true},
		"with a claim":                 {func(b *bench) { b.request(2, func(r *Request) { r.Lease = 1 << 40 }) }, 0, false, true, false},
		"with one that was given back": {func(b *bench) { b.claimed(2, Release) }, 0, false, true, false},
		"with one past its time":       {func(b *bench) { b.request(2, func(r *Request) { r.Lease, r.RetryWindow = 1, 1 }) }, 0, false, true, true},
	} {
		b := newBench(t)
		b.claimed(1, Consume)
		c.before(b)
		h, p := b.s.head, b.s.pages[0]
		b.e.Now = p.quiet + c.at
		p.Dirty = false
		if empty := h.Settle(p, b.e.Now, b.e.Now, 1<<40, c.force); empty != c.empty || !p.Dirty {
			t.Errorf("%s: empty %v, to be stored %v; want %v, and that it is", name, empty, p.Dirty, c.empty)
		}
		if folded := h.has(1) && p.Recents() == 0; folded != c.folds {
			t.Errorf("%s: folded %v, want %v", name, folded, c.folds)
		}
		if c.empty {
			delete(b.s.pages, 0)
		}
		want := Duplicate
		if c.folds {
			want = Reused // its tag is gone
		}
		b.wants(name+", and then a copy", b.request(1, func(r *Request) { r.Token = token(9) }), want)
	}
	b := newBench(t)
	b.claimed(1, Consume)
	p := b.s.pages[0]
	if b.s.head.Settle(p, p.quiet, testNow+100, 99, false); b.s.head.has(1) || b.s.head.Mark != testNow {
		t.Errorf("what is too old to be kept stays: %+v", b.s.head)
	}
}

// TestHeadForgetsExcuses: beyond maxExcused the oldest go, and count as missing from then on. What
// was missing among them stays so: a page that is not folded yet may know more of it.
func TestHeadForgetsExcuses(t *testing.T) {
	h := &Head{Start: 1, Settled: 1 << 40}
	for i := range uint64(maxExcused) {
		h.Excused = append(h.Excused, Range{3 + 10*i, 4 + 10*i})
	}
	if h.bound(); h.Dirty || len(h.Excused) != maxExcused {
		t.Errorf("at the bound: %d", len(h.Excused))
	}
	h.excuse(Range{1 << 30, 1 << 30})
	h.excuse(Range{1<<30 + 5, 1<<30 + 5})
	h.bound() // {3, 4} and {13, 14} go
	if len(h.Excused) != maxExcused || h.Start != 1 || h.Lost != 0 || h.Excused[0].First != 23 {
		t.Errorf("start %d, lost %d, %d ranges from %v", h.Start, h.Lost, len(h.Excused), h.Excused[0])
	}
	if got := h.missing(); got[0] != (Range{1, 22}) {
		t.Errorf("%v is missing first, want 1 to 22", got[0])
	}
}

// TestHeadClosesExcusedGaps before it forgets that they are excused.
func TestHeadClosesExcusedGaps(t *testing.T) {
	h := &Head{Start: 1, Settled: 5 * maxExcused}
	for i := range uint64(maxExcused) {
		h.add(Interval{5*i + 1, 5*i + 3, int64(i)}) //nolint:gosec // G115: small
		h.excuse(Range{5*i + 4, 5*i + 4})
		if i%2 == 0 {
			h.excuse(Range{5*i + 5, 5*i + 5})
		}
	}
	h.excuse(Range{6 * maxExcused, 6 * maxExcused})
	before := h.missing()
	h.bound()
	if got := h.missing(); len(h.Excused) > maxExcused || !reflect.DeepEqual(got, before) || len(got) != maxExcused/2 {
		t.Errorf("%d ranges are excused, and %d are missing, want %d", len(h.Excused), len(got), len(before))
	}
}

// TestHeadTidies: what was sealed longer ago than it has to be kept goes, oldest first, and the
// mark refuses it from then on.
func TestHeadTidies(t *testing.T) {
	intervals := []Interval{{1, 10, 100}, {12, 20, 300}, {22, 30, 200}}
	for name, c := range map[string]struct {
		time  int64
		want  int // intervals left
		mark  int64
		start uint64
		lost  uint64
	}{
		"nothing is old":        {150, 3, 7, 1, 0},
		"the last instant":      {150 + 0, 3, 7, 1, 0},
		"one is old":            {151, 2, 100, 11, 0},
		"the second holds":      {350, 2, 100, 11, 0},
		"all are old":           {351, 0, 300, 31, 2},
		"older ones go with it": {1000, 0, 300, 31, 2},
	} {
		h := &Head{Mark: 7, Start: 1, Settled: 40, Intervals: append([]Interval(nil), intervals...)}
		h.Tidy(c.time, 50)
		if len(h.Intervals) != c.want || h.Mark != c.mark || h.Start != c.start || h.Lost != c.lost {
			t.Errorf("%s: %+v, want %d intervals, mark %d, start %d, lost %d", name, h, c.want, c.mark, c.start, c.lost)
		}
		if h.Dirty != (c.want != 3) {
			t.Errorf("%s: dirty %v", name, h.Dirty)
		}
	}
	h := &Head{Mark: 500, Start: 50, Settled: 60, Intervals: []Interval{{1, 10, 100}}}
	if h.Tidy(1000, 0); h.Start != 50 || h.Lost != 0 || h.Mark != 500 {
		t.Errorf("what lies before the account changed it: %+v", h)
	}
	h = &Head{Mark: 7, Start: 10, Settled: 60, Intervals: []Interval{{10, 10, 100}}}
	if h.Tidy(1000, 0); h.Start != 11 || h.Mark != 100 {
		t.Errorf("the account begins at %d after its first sequence was forgotten, want 11", h.Start)
	}
}

// TestHeadIsBounded: MaxIntervals stay; one more goes with its gap, unless the gaps of the older
// half are excused.
func TestHeadIsBounded(t *testing.T) {
	many := func(n int) *Head {
		h := &Head{Start: 1, Settled: 1 << 40}
		for i := range uint64(n) { //nolint:gosec // G115: small
			h.Intervals = append(h.Intervals, Interval{1 + 10*i, 5 + 10*i, int64(i)}) //nolint:gosec // G115: small
		}
		return h
	}
	h := many(MaxIntervals)
	if h.Tidy(0, 0); len(h.Intervals) != MaxIntervals || h.Start != 1 {
		t.Errorf("at the bound: %d intervals", len(h.Intervals))
	}
	h = many(MaxIntervals + 2)
	if h.Tidy(0, 0); len(h.Intervals) != MaxIntervals || h.Start != 16 || h.Lost != 5 || h.Mark != 1 {
		t.Errorf("two more: %d intervals, start %d, lost %d, mark %d", len(h.Intervals), h.Start, h.Lost, h.Mark)
	}
	h = many(MaxIntervals + 2)
	for i := range uint64(MaxIntervals + 1) {
		h.excuse(Range{6 + 10*i, 10 + 10*i})
	}
	h.Excused = h.Excused.Sub(Range{16, 16}) // 16 is missing
	h.Excused = h.Excused[:maxExcused]
	h.Tidy(0, 0)
	// Of the older half all gaps but one are closed: two intervals are left of it.
	if half := (MaxIntervals + 2) / 2; len(h.Intervals) != MaxIntervals+2-half+2 || h.Intervals[0] != (Interval{1, 15, 1}) || h.Start != 1 || h.Lost != 0 {
		t.Errorf("excused gaps: %d intervals from %v, start %d, lost %d", len(h.Intervals), h.Intervals[0], h.Start, h.Lost)
	}
	if v := h.Intervals[1]; v.First != 21 || v.Newest != int64((MaxIntervals+2)/2-1) {
		t.Errorf("the second is %v", v)
	}
}

// TestHeadOfManyRecords: a stream of which messages are parked, or given back, in more pages
// than a head has intervals for misses none of them, none of those around them, and the one
// that is lost between them.
func TestHeadOfManyRecords(t *testing.T) {
	const pages, lost = 3 * MaxIntervals, 10
	for name, kind := range map[string]Kind{"parked": Park, "given back": Release} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.e.Birth = -1 << 40
			handle := func(n uint64, kind Kind) {
				b.wants("", b.request(n, func(r *Request) {
					r.Settled, r.SealedAt, r.FreshUntil = n-1, testNow+int64(n), 2*testNow //nolint:gosec // G115: small
				}), Done)
				b.finish(n, kind, Done)
			}
			back := uint64(0)
			for index := range uint64(pages) {
				first := 64*index + 1
				for n := first; n < first+64; n++ {
					switch {
					case n == lost:
					case index%2 == 0 && n == first+20:
						handle(n, kind)
						if kind == Release {
							back++
						}
					default:
						handle(n, Consume)
					}
				}
				if b.settle(b.s.pages[index]) {
					delete(b.s.pages, index)
				}
				Enter(b.s.head, &Note{Range: Range{lost, lost}, Kind: NoteLate})
			}
			h := b.s.head
			if len(h.Intervals) > MaxIntervals || kind == Release && h.Start == 1 {
				t.Errorf("%d intervals, the account begins at %d", len(h.Intervals), h.Start)
			}
			a := Count(b.e, Key{}, h, slices.Collect(maps.Values(b.s.pages)))
			if uint64(len(a.Missing)) != back+1 || a.Lost != 0 || a.Missing[0].Range != (Range{lost, lost}) || !a.Missing[0].Late {
				t.Errorf("%d are missing and %d lost; want %d that were given back, and behind %v", len(a.Missing), a.Lost, back, a.Missing[:min(2, len(a.Missing))])
			}
			for _, p := range b.s.pages {
				for len(p.records) > 0 {
					handle(p.first()+uint64(p.records[0].offset), Consume)
				}
				for range 2 {
					if !b.settle(p) {
						t.Fatal("a page without records stays")
					}
				}
			}
			if a := Count(b.e, Key{}, h, nil); uint64(len(a.Missing))+a.Lost != 1 || len(h.Apart) > 0 {
				t.Errorf("all are handled but one: %d missing, %d lost, %d apart", len(a.Missing), a.Lost, len(h.Apart))
			}
		})
	}
}

// TestHeadBeginsWithinAPage: what lies before the first message of a stream that is older than its
// store is not missing, also not while that message is given back.
func TestHeadBeginsWithinAPage(t *testing.T) {
	b := newBench(t)
	b.e.Birth = testNow
	h := (*Head)(nil)
	for _, kind := range []Kind{Release, Consume} {
		b.wants("", b.request(20, func(r *Request) { r.Settled = 19; r.SealedAt = testNow + 1 }), Done)
		b.finish(20, kind, Done)
		h = b.s.head
		b.settle(b.s.pages[0])
		if a := Count(b.e, Key{}, h, []*Page{b.s.pages[0]}); len(a.Missing) > 0 || a.Lost > 0 || a.Start != 20 {
			t.Errorf("%v: %+v", kind, a)
		}
	}
	if len(h.Apart) > 0 {
		t.Errorf("%v are apart", h.Apart)
	}
}

// TestHeadOfTooManyApart: beyond maxApart the oldest count as missing.
func TestHeadOfTooManyApart(t *testing.T) {
	h := &Head{Start: 70, Settled: 1 << 40}
	for i := range uint64(maxApart) {
		h.Apart = append(h.Apart, Range{1 + 128*i, 64 + 128*i})
	}
	if h.Tidy(0, 0); len(h.Apart) != maxApart || h.Lost != 0 {
		t.Errorf("at the bound: %d apart, %d lost", len(h.Apart), h.Lost)
	}
	h.Apart = h.Apart.Add(Range{1 << 30, 1<<30 + 63})
	h.Apart = h.Apart.Add(Range{1 << 31, 1<<31 + 63})
	// The account began behind the first; the second is missing as part of its gap.
	if h.Tidy(0, 0); len(h.Apart) != maxApart || h.Apart[0].First != 257 || h.Lost != 64 {
		t.Errorf("two more: %d apart from %v, %d lost", len(h.Apart), h.Apart[0], h.Lost)
	}
	if h.Hold(NewPage(&Group{}, nil, 1<<26, 64)); len(h.Apart) != maxApart || h.Apart[0].First != 385 {
		t.Errorf("held one more: %d apart from %v", len(h.Apart), h.Apart[0])
	}
	if m := h.missing(); m[0].First != 70 {
		t.Errorf("%v is missing first, want 70", m[0])
	}
	h = &Head{Start: 70, Settled: 100, Apart: Ranges{{1, 64}, {66, 128}}, Intervals: []Interval{{3, 60, 1}}}
	if m, want := h.missing(), (Ranges{{1, 2}, {61, 64}, {66, 100}}); !reflect.DeepEqual(m, want) {
		t.Errorf("missing are %v, want %v", m, want)
	}
}

// TestHeadPrunes: notes and steps that nothing is missing of any more go.
func TestHeadPrunes(t *testing.T) {
	h := &Head{
		Start: 5, Settled: 40, Intervals: []Interval{{5, 9, 1}, {20, 29, 1}},
		Excused: Ranges{{1, 3}, {10, 12}, {25, 31}}, Late: Ranges{{2, 2}, {13, 22}}, Missing: Ranges{{8, 14}},
		Steps: []Step{{9, 1}, {12, 2}, {19, 3}, {29, 4}, {40, 5}},
	}
	h.prune()
	want := Head{
		Start: 5, Settled: 40, Intervals: []Interval{{5, 9, 1}, {20, 29, 1}},
		Excused: Ranges{{10, 12}, {30, 31}}, Late: Ranges{{13, 19}}, Missing: Ranges{{10, 14}},
		Steps: []Step{{19, 3}, {40, 5}},
	}
	if !reflect.DeepEqual(clean(h), want) {
		t.Errorf("%+v, want %+v", h, want)
	}
	h = &Head{Start: 1, Settled: 10 * (MaxIntervals + 3)}
	for i := range uint64(MaxIntervals + 3) {
		h.Steps = append(h.Steps, Step{10 * (i + 1), int64(i)}) //nolint:gosec // G115: small
	}
	if h.prune(); len(h.Steps) != MaxIntervals || h.Steps[0] != (Step{40, 3}) {
		t.Errorf("%d steps from %v", len(h.Steps), h.Steps[0])
	}
}

// TestGapsAndMissing: between intervals, within bounds, without what is excused.
func TestGapsAndMissing(t *testing.T) {
	h := &Head{Start: 3, Settled: 30, Intervals: []Interval{{1, 4, 1}, {10, 12, 1}, {20, 22, 1}}, Excused: Ranges{{6, 7}, {23, 40}}}
	for _, c := range []struct {
		r    Range
		want Ranges
	}{
		{Range{1, 4}, Ranges{}},
		{Range{1, 5}, Ranges{{5, 5}}},
		{Range{3, 11}, Ranges{{5, 9}}},
		{Range{5, 9}, Ranges{{5, 9}}},
		{Range{12, 20}, Ranges{{13, 19}}},
		{Range{13, 13}, Ranges{{13, 13}}},
		{Range{22, 30}, Ranges{{23, 30}}},
		{Range{1, 99}, Ranges{{5, 9}, {13, 19}, {23, 99}}},
	} {
		if got := h.gaps(c.r); !reflect.DeepEqual(got, c.want) {
			t.Errorf("gaps of %v: %v, want %v", c.r, got, c.want)
		}
	}
	if got, want := h.missing(), (Ranges{{5, 5}, {8, 9}, {13, 19}}); !reflect.DeepEqual(got, want) {
		t.Errorf("missing %v, want %v", got, want)
	}
	h = &Head{Start: 3, Settled: 3}
	if got := h.missing(); !reflect.DeepEqual(got, Ranges{{3, 3}}) {
		t.Errorf("one is settled: missing %v", got)
	}
	if h.Settled = 2; len(h.missing()) != 0 {
		t.Errorf("none is settled: missing %v", h.missing())
	}
}

// TestStepsMerge: a sequence counts as settled at the earliest step that settles it.
func TestStepsMerge(t *testing.T) {
	for _, c := range []struct{ a, b, want []Step }{
		{[]Step{{5, 10}, {9, 20}}, []Step{{7, 15}}, []Step{{5, 10}, {7, 15}, {9, 20}}},
		{[]Step{{5, 10}, {9, 20}}, []Step{{9, 5}}, []Step{{9, 5}}},
		{[]Step{{5, 10}}, []Step{{7, 10}}, []Step{{5, 10}, {7, 10}}},
		{[]Step{{7, 10}}, []Step{{5, 10}}, []Step{{5, 10}, {7, 10}}},
		{[]Step{{5, 10}}, []Step{{5, 10}}, []Step{{5, 10}}},
		{[]Step{{5, -1 << 62}}, []Step{{7, 1 << 61}}, []Step{{5, -1 << 62}, {7, 1 << 61}}},
	} {
		if got := mergeSteps(c.a, c.b); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%v and %v: %v, want %v", c.a, c.b, got, c.want)
		}
	}
}

// TestHeadHoldsOnce: a page that is held changes its head once, and one before the account never.
func TestHeadHoldsOnce(t *testing.T) {
	p := NewPage(&Group{}, nil, 1, 64)
	h := &Head{Start: 70}
	for _, want := range []bool{true, false} {
		h.Dirty = false
		if h.Hold(p); h.Dirty != want || !reflect.DeepEqual(h.Apart, Ranges{{70, 128}}) {
			t.Errorf("changed: %v, want %v; %v are apart", h.Dirty, want, h.Apart)
		}
	}
	h = &Head{Start: 129}
	if h.Hold(p); h.Dirty || len(h.Apart) > 0 {
		t.Errorf("before the account: changed %v, %v are apart", h.Dirty, h.Apart)
	}
}

// TestHeadHoldsPages: the account passes pages that are in use, because their neighbours are folded
// before them; what they have consumed is not missing, then or later, and what they miss is
// counted once.
func TestHeadHoldsPages(t *testing.T) {
	const pages, lost = 2*MaxIntervals + 200, 10
	for name, late := range map[string]bool{"never folded": false, "folded, and in use again": true} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.e.Birth = -1 << 40
			begin := func(n uint64) {
				b.wants("", b.request(n, func(r *Request) {
					r.Settled, r.SealedAt, r.FreshUntil = n-1, testNow+int64(n), 2*testNow //nolint:gosec // G115: small
				}), Done)
			}
			h := func() *Head { return b.s.head }
			settle := func(index uint64) {
				if b.settle(b.s.pages[index]) {
					delete(b.s.pages, index)
				}
			}
			begin(1)
			b.finish(1, Park, Done)
			for n := uint64(2); n <= 64; n++ {
				if n != lost && (n < 30 || !late) {
					begin(n)
					b.finish(n, Consume, Done)
				}
			}
			if late {
				settle(0)
				for n := uint64(30); n <= 64; n++ {
					begin(n)
					b.finish(n, Consume, Done)
				}
			}
			waiting := []uint64(nil)
			for index := uint64(1); index < pages; index++ {
				for n := 64*index + 1; n <= 64*index+64; n += 9 {
					begin(n)
					if index%2 == 0 || n > 64*index+1 {
						b.finish(n, Consume, Done)
						continue
					}
					b.finish(n, Release, Done)
					waiting = append(waiting, n)
				}
				b.s.pages[index].excuse(Range{64*index + 2, 64*index + 9})
				for n := 64*index + 11; n <= 64*index+64; n += 9 {
					b.s.pages[index].excuse(Range{n, min(n+7, 64*index+64)})
				}
				settle(index)
			}
			if h().Start <= 64 {
				t.Fatalf("the account begins at %d", h().Start)
			}
			for i := range 3 { // in use; folded; and folded again, as after a crash between two writes
				a := Count(b.e, Key{}, h(), slices.Collect(maps.Values(b.s.pages)))
				listed, lost := len(waiting), uint64(1)
				if i == 0 { // as long as its page is there it is listed
					listed, lost = listed+1, 0
				}
				if len(a.Missing) != listed || a.Lost != lost {
					t.Errorf("folded %d times: %d are missing and %d lost, want %d and %d", i, len(a.Missing), a.Lost, listed, lost)
				}
				b.settle(b.s.pages[0])
			}
		})
	}
}

// TestHeadClosesAroundLosses: with more excused ranges than a head keeps, what lies beside what was
// consumed counts as that, and neither it nor what is excused on its own is missing.
func TestHeadClosesAroundLosses(t *testing.T) {
	h := &Head{Start: 1}
	const gaps = MaxIntervals - 1
	for i := range uint64(gaps + 1) {
		h.add(Interval{1 + 10*i, 5 + 10*i, 1})
		h.excuse(Range{6 + 10*i, 6 + 10*i}) // 7 and 9 are lost
		h.excuse(Range{8 + 10*i, 8 + 10*i})
		h.excuse(Range{10 + 10*i, 10 + 10*i})
	}
	h.Settled = 10*gaps + 5
	h.Excused = h.Excused[:len(h.Excused)-3]
	h.Excused = slices.DeleteFunc(h.Excused, func(r Range) bool { return r.First%10 == 8 && r.First%30 != 8 })
	h.Tidy(0, 0)
	if n, m := len(h.Excused), h.missing(); n > maxExcused || m.Count() != 2*gaps+gaps*2/3 || h.Lost != 0 {
		t.Errorf("%d are excused, %d are missing and %d lost, want %d", n, m.Count(), h.Lost, 2*gaps+gaps*2/3)
	}
	// Of a page apart nothing does: its interval may be forgotten before the page is folded.
	h = &Head{Start: 1, Settled: 200, Intervals: []Interval{{1, 63, 1}, {65, 200, 1}}, Excused: Ranges{{64, 64}}, Apart: Ranges{{64, 128}}}
	h.close(2)
	h.absorb(2)
	h.forget(1)
	if !h.Excused.Has(64) || h.Lost != 0 || len(h.missing()) != 0 {
		t.Errorf("%v are excused, %v missing, %d lost", h.Excused, h.missing(), h.Lost)
	}
	if p := NewPage(&Group{}, h, 0, 64); !p.excused.Has(64) {
		t.Error("a page does not know what the head excuses")
	}
}

// TestHeadKnowsWhatIsExcused: the head learns at once what it does not learn by a fold in time, and
// keeps no room for what a page apart knows.
func TestHeadKnowsWhatIsExcused(t *testing.T) {
	b := newBench(t)
	settle := func(index uint64) {
		if b.settle(b.s.pages[index]) {
			delete(b.s.pages, index)
		}
	}
	b.claimed(63, Consume)
	settle(0)
	b.wants("", b.request(65, func(r *Request) { r.Void = []Range{{64, 64}} }), Done)
	if !b.s.head.Excused.Has(64) {
		t.Error("what is void in a page that is folded is not excused until the page that says so is")
	}
	b.claimed(130, Park)
	settle(2)
	b.wants("", b.request(140, func(r *Request) { r.FreshUntil = 0 }), NotFresh)
	if !b.s.pages[2].excused.Has(140) || !b.s.head.Excused.Has(140) {
		t.Error("what is rejected in a page that waits for its parked messages is not excused")
	}
	b.claimed(200, Release)
	b.claimed(210, Park)
	settle(3)
	if b.s.head.Excused.Has(210) || !b.s.pages[3].excused.Has(210) {
		t.Error("the head excuses what a page apart does")
	}
	b.claimed(200, Consume)
	settle(3)
	if !b.s.head.Excused.Has(210) {
		t.Error("the head does not excuse what is parked in a page that is not apart any more")
	}
}

// TestHeadStripsPages: a page that is full of gaps and not due loses its tags but one, once, in place
// of being folded into a head without room to spare.
func TestHeadStripsPages(t *testing.T) {
	roomy, full := &Head{Start: 1}, &Head{Start: 1}
	for i := range uint64(roomyIntervals) {
		full.add(Interval{1000 + 2*i, 1000 + 2*i, 1})
	}
	page := func(consumed ...uint64) *Page {
		b := newBench(t)
		for _, n := range consumed {
			b.claimed(n, Consume)
		}
		return b.s.pages[0]
	}
	for name, c := range map[string]struct {
		h    *Head
		p    *Page
		now  int64
		want bool
	}{
		"gaps":    {full, page(1, 3, 5), testNow, true},
		"room":    {roomy, page(1, 3, 5), testNow, false},
		"no gaps": {full, page(1, 2, 3), testNow, false},
		"due":     {full, page(1, 3, 5), testNow + minRecent, false},
		"one tag": {full, page(3), testNow, false},
	} {
		tags, due := c.p.Recents(), c.p.Due()
		if got := c.h.Strip(c.p, c.now); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
		if c.want {
			tags, due = 1, due+minRecent
		}
		if c.p.Recents() != tags || c.p.Due() != due || c.h.Strip(c.p, c.now) {
			t.Errorf("%s: %d tags, due at %d, want %d and %d", name, c.p.Recents(), c.p.Due(), tags, due)
		}
	}
	// By force a page is stripped first, and folded next.
	p, had := page(1, 3, 5), len(full.Intervals)
	for _, folds := range []bool{false, true} {
		if empty := full.Settle(p, testNow, testNow, 1<<40, true); empty != folds || full.has(3) != folds || len(full.Intervals) == had == folds {
			t.Errorf("by force, to be folded %v: gone %v, %d intervals of %d", folds, empty, len(full.Intervals), had)
		}
	}
}

// TestParkedAfterRetries: in each second page a message fails, is given back, and is dead-lettered when it is
// tried again, after its page was folded. Apart are the pages that wait for that, and no others, however many
// there were: what a head has no room to keep apart counts as lost.
func TestParkedAfterRetries(t *testing.T) {
	const minute, pages, delay = int64(60_000), 600, 20
	b := newBench(t)
	b.e.Birth, b.e.Group.Mark = -1<<40, -1
	b.e.ParkedTTL = 15 * 24 * 60 * minute
	due := map[uint64]int64{}
	settled := 0
	end := func(n uint64, change func(*Request), kind Kind) {
		b.wants("", b.request(n, func(r *Request) {
			r.SealedAt, r.FreshUntil, r.RetryWindow = testNow+int64(n), 1<<60, 24*60*minute //nolint:gosec // G115: small
			change(r)
		}), Done)
		b.finish(n, kind, Done)
		index := IndexOf(n, b.e.Span)
		due[index] = b.s.pages[index].Next(b.e.Now)
	}
	again := func(*Request) {}
	for i := range uint64(pages) {
		first := 64*i + 1
		end(first, func(r *Request) { r.Settled = first - 1 }, [...]Kind{Release, Consume}[i%2])
		end(first+63, func(r *Request) { r.Settled, r.Void = first+62, []Range{{first + 1, first + 62}} }, Consume)
		b.e.Now += minute
		if i >= delay && i%2 == 0 {
			end(first-64*delay, again, Park)
		}
		for index, at := range due {
			if at > b.e.Now {
				continue
			}
			settled++
			if due[index] = 0; b.s.head.Settle(b.s.pages[index], b.e.Now, 0, 0, false) {
				delete(b.s.pages, index)
				delete(due, index)
			} else {
				due[index] = b.s.pages[index].Next(b.e.Now)
			}
		}
		if n := len(b.s.head.Apart); n > delay {
			t.Fatalf("%d ranges are apart", n)
		}
	}
	if settled > 2*pages {
		t.Errorf("%d pages were settled %d times", pages, settled)
	}
	if a := Count(b.e, Key{}, b.s.head, slices.Collect(maps.Values(b.s.pages))); len(a.Missing) > delay || a.Lost > 0 {
		t.Errorf("%d runs are missing, and %d lost", len(a.Missing), a.Lost)
	}
}

// TestHeadDropsOldExcusesFirst: a broker replays 1,025 old messages of a stream, which lie below its
// account. Each is rejected as expired and noted, which no account needs. What was rejected above it and never
// handled does not count as consumed for that.
func TestHeadDropsOldExcusesFirst(t *testing.T) {
	const rejected = 5100
	h := &Head{Start: 5000, Settled: 6000, Intervals: []Interval{{5000, 5099, 1}, {5101, 6000, 1}}, Excused: Ranges{{rejected, rejected}}}
	for n := uint64(1); n <= 2*maxExcused+1; n += 2 {
		Enter(h, &Note{Range: Range{n, n}, Kind: NoteAccepted})
	}
	if h.has(rejected) || !h.Excused.Has(rejected) {
		t.Errorf("%d counts as consumed; intervals %v", rejected, h.Intervals)
	}
}

// TestStrippedPageIsDue: a page from which tags are stripped again and again, because the store is crowded
// while a backlog is delivered in any order, is due soon after its last message, and until then behind those
// that have not been stripped.
func TestStrippedPageIsDue(t *testing.T) {
	b := newBench(t)
	b.e.Span = MaxSpan // as on Azure Tables
	h := &Head{Start: 1}
	for i := range uint64(roomyIntervals) {
		h.add(Interval{1_000_000 + 2*i, 1_000_000 + 2*i, 1})
	}
	for n := uint64(1); n <= MaxSpan; n += 2 {
		b.e.Now += 1000 // one message each second
		b.claimed(n, Consume)
		p := b.s.pages[0]
		h.Settle(p, b.e.Now, 0, 0, n > 1) // by force: crowded
		if wait := p.Due() - b.e.Now; wait > maxPutOff || n > 1 && wait <= minRecent {
			t.Fatalf("%d: the page is due in %d s; it has %d tags", n, wait/1000, p.Recents())
		}
	}
}

// TestRejectedIsNotHandled: of two receivers one has a wrong clock and rejects its half of the messages as
// expired. None of them is told to be handled, and each may be resealed, until there are more of them than a
// head has room for; then the oldest are, and the newest 512 never.
func TestRejectedIsNotHandled(t *testing.T) {
	for _, pages := range []uint64{30, 70} {
		b := newBench(t)
		b.e.Birth, b.e.Group.Mark = -1<<40, -1
		sealed := func(n uint64) int64 { return testNow + int64(n) } //nolint:gosec // G115: small
		last := 64 * pages
		for n := uint64(1); n <= last; n++ {
			if n%2 == 0 {
				Enter(b.s.head, &Note{Range: Range{n, n}, Kind: NoteAccepted})
			} else {
				b.wants("", b.request(n, func(r *Request) { r.Settled, r.SealedAt, r.FreshUntil = n-1, sealed(n), 2*testNow }), Done)
				b.finish(n, Consume, Done)
			}
			if i := n/64 - 1; n%64 == 0 && b.settle(b.s.pages[i]) {
				delete(b.s.pages, i)
			}
		}
		told := uint64(0)
		for n := uint64(2); n <= last; n += 2 {
			switch l := Examine(b.e, b.s, &Query{Sequence: n, SealedAt: sealed(n)}); {
			case l.State == Consumed && n > last-2*roomyIntervals:
				t.Fatalf("of %d messages %d, which was rejected, is told to be handled", last, n)
			case l.State == Consumed:
				told++
			case l.State != Unused:
				t.Fatalf("of %d messages %d, which was rejected, is in state %d", last, n, l.State)
			}
		}
		if forced := last/2 > MaxIntervals; told > 0 != forced || b.s.head.Mark > 0 {
			t.Errorf("of %d messages %d that were rejected are told to be handled; the mark is %d", last, told, b.s.head.Mark)
		}
		for n := uint64(1); n <= last; n += 2 {
			if out := b.request(n, func(r *Request) { r.Resealed, r.SealedAt, r.FreshUntil = true, sealed(n), 2*testNow }).Outcome; out != Reused {
				t.Fatalf("%d was handled, and its resealed copy begins with %d", n, out)
			}
		}
	}
}
