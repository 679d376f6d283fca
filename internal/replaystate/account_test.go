package replaystate

import (
	"fmt"
	"maps"
	"reflect"
	"runtime"
	"slices"
	"testing"
)

// TestCount: what is settled and was not seen is missing, since it was settled, or since a claim
// of it was given up; what was reported is told apart.
func TestCount(t *testing.T) {
	b := newBench(t)
	b.claimed(1, Consume)
	b.e.Now += 10_000
	settles := func(n, settled uint64) {
		b.Helper()
		b.wants("", b.request(n, func(r *Request) { r.Settled = settled; r.FreshUntil = testNow * 2 }), Done)
	}
	settles(10, 9)
	b.finish(10, Consume, Done)
	first := b.e.Now
	b.e.Now += 10_000
	settles(3, 0)
	b.finish(3, Release, Done)
	released := b.e.Now
	settles(4, 0) // stays claimed
	settles(5, 0)
	b.finish(5, Park, Done)
	b.e.Now += 10_000
	settles(20, 19)
	second := b.e.Now
	b.s.pages[0].excuse(Range{12, 13})
	Enter(b.s.head, &Note{Range: Range{7, 15}, Kind: NoteLate})
	Enter(b.s.head, &Note{Range: Range{15, 15}, Kind: NoteMissing})
	b.s.head.Start, b.s.head.Lost = 1, 3
	count := func() Account { return Count(b.e, Key{}, b.s.head, []*Page{b.s.pages[0]}) }
	want := Account{Start: 1, Settled: 19, Newest: testNow, Consumed: 2, Lost: 3, Missing: []Missing{
		{Range: Range{2, 2}, Since: first},
		{Range: Range{3, 3}, Since: released},
		{Range: Range{6, 6}, Since: first},
		{Range: Range{7, 9}, Since: first, Late: true},
		{Range: Range{11, 11}, Since: second, Late: true},
		{Range: Range{14, 14}, Since: second, Late: true},
		{Range: Range{15, 15}, Since: second, Late: true, Missing: true},
		{Range: Range{16, 19}, Since: second},
	}}
	if got := count(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	// The lease of 4 ends: it is missing since then.
	b.e.Now = released + testLease
	got := count()
	if m := got.Missing[2]; m.Range != (Range{4, 4}) || m.Since != released+testLease {
		t.Errorf("a claim that is over: %+v", got.Missing)
	}
	b.s.pages[0].excuse(Range{3, 3})
	if got := count(); got.Missing[1].Range.First == 3 {
		t.Errorf("released and excused: %+v", got.Missing)
	}
}

// TestCountChangesNothing: the account takes the pages over into a copy of the head.
func TestCountChangesNothing(t *testing.T) {
	b := newBench(t)
	b.claimed(10, Consume)
	b.wants("", b.request(12, func(r *Request) { r.Settled = 11 }), Done)
	h, p := b.s.head, b.s.pages[0]
	h.Intervals, h.Excused, h.Steps = []Interval{{8, 9, 1}, {70, 80, 2}}, Ranges{{3, 4}, {90, 91}}, []Step{{7, 1}, {11, testNow + 1}}
	p.excuse(Range{5, 5})
	head, page := AppendHead(nil, h), AppendPage(nil, p)
	if a := Count(b.e, Key{}, h, []*Page{p}); a.Consumed != 14 || a.Missing == nil {
		t.Errorf("%+v, want 14 consumed and some missing", a)
	}
	if !reflect.DeepEqual(AppendHead(nil, h), head) || !reflect.DeepEqual(AppendPage(nil, p), page) {
		t.Errorf("counting changed the head to %+v or the page to %+v", h, p)
	}
}

// TestParkedIsNotMissing, however many ranges the page excuses beside it.
func TestParkedIsNotMissing(t *testing.T) {
	b := newBench(t)
	b.claimed(1, Park)
	b.claimed(2, Consume)
	p := b.s.pages[0]
	for n := uint64(1); n <= 2*maxExcused; n++ {
		p.excuse(Range{1000 + 2*n, 1000 + 2*n})
	}
	b.s.head.Start, p.Settled = 1, 2
	if a := Count(b.e, Key{}, b.s.head, []*Page{p}); p.excused.Has(1) || len(a.Missing) > 0 {
		t.Errorf("missing %+v, want none; excused beside its record: %v", a.Missing, p.excused.Has(1))
	}
}

// TestImplausible: exactly MaxMissing are still told, and one more is not.
func TestImplausible(t *testing.T) {
	h := &Head{Start: 1, Settled: MaxMissing, Newest: 7}
	if a := Count(&Env{}, Key{}, h, nil); a.Implausible || len(a.Missing) != 1 || a.Missing[0] != (Missing{Range: Range{1, MaxMissing}, Since: 7}) {
		t.Errorf("%+v, want one missing range of MaxMissing", a)
	}
	h.Settled++
	if a := Count(&Env{}, Key{}, h, nil); !a.Implausible || len(a.Missing) != 0 {
		t.Errorf("one more: %+v", a)
	}
}

// TestMissingSince: each part is missing since the step that settled it; what no step is kept of
// since the last one.
func TestMissingSince(t *testing.T) {
	h := &Head{Settled: 30, Newest: 99, Steps: []Step{{10, 5}, {20, 6}}}
	all := Ranges{{1, 30}}
	if got, want := h.list(all), []Missing{{Range: Range{1, 10}, Since: 5}, {Range: Range{11, 20}, Since: 6}, {Range: Range{21, 30}, Since: 6}}; !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if len(h.Steps) != 2 {
		t.Errorf("the head has %v now", h.Steps)
	}
	h.Steps = []Step{{10, 5}, {30, 6}}
	if got, want := h.list(all), []Missing{{Range: Range{1, 10}, Since: 5}, {Range: Range{11, 30}, Since: 6}}; !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	h.Steps = nil
	if got, want := h.list(all), []Missing{{Range: Range{1, 30}, Since: 99}}; !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestLater splits runs around single sequences.
func TestLater(t *testing.T) {
	run := []Missing{{Range: Range{1, 3}, Since: 9}, {Range: Range{5, 9}, Since: 10, Late: true}}
	part := func(a, b uint64, since int64) Missing {
		return Missing{Range: Range{a, b}, Since: since, Late: true}
	}
	for _, c := range []struct {
		n     uint64
		since int64
		want  []Missing
	}{
		{4, 20, run[1:]},
		{10, 20, run[1:]},
		{7, 10, run[1:]},
		{7, 11, []Missing{part(5, 6, 10), part(7, 7, 11), part(8, 9, 10)}},
		{5, 11, []Missing{part(5, 5, 11), part(6, 9, 10)}},
		{9, 11, []Missing{part(5, 8, 10), part(9, 9, 11)}},
	} {
		got := later(run, []since{{c.n, c.since}})
		if want := append(run[:1:1], c.want...); !reflect.DeepEqual(got, want) {
			t.Errorf("%d since %d: %+v, want %+v", c.n, c.since, got, want)
		}
	}
	if got := later([]Missing{{Range: Range{1, 2}}}, []since{{1, 5}}); len(got) != 2 || got[0].Range != (Range{1, 1}) {
		t.Errorf("the first of all: %+v", got)
	}
	got := later(run, []since{{2, 10}, {4, 99}, {5, 11}, {6, 9}, {8, 12}, {10, 13}})
	want := []Missing{
		{Range: Range{1, 1}, Since: 9}, {Range: Range{2, 2}, Since: 10}, {Range: Range{3, 3}, Since: 9},
		part(5, 5, 11), part(6, 7, 10), part(8, 8, 12), part(9, 9, 10),
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("several: %+v, want %+v", got, want)
	}
}

// TestEnter: a note says how much of it is new, fills no memory, and excuses only what is not
// consumed.
func TestEnter(t *testing.T) {
	h := &Head{Start: 1, Settled: 50, Intervals: []Interval{{10, 12, 1}}}
	for _, c := range []struct {
		n    Note
		want uint64
	}{
		{Note{Range: Range{5, 8}, Kind: NoteLate}, 4},
		{Note{Range: Range{7, 9}, Kind: NoteLate}, 1},
		{Note{Range: Range{5, 9}, Kind: NoteLate}, 0},
		{Note{Range: Range{5, 9}, Kind: NoteMissing}, 5},
		{Note{Range: Range{8, 14}, Kind: NoteAccepted}, 7},
		{Note{Range: Range{8, 9}, Kind: NoteAccepted}, 0},
	} {
		h.Dirty = false
		if got := Enter(h, &c.n); got != c.want || h.Dirty != (c.want > 0) {
			t.Errorf("%+v: %d, dirty %v; want %d", c.n, got, h.Dirty, c.want)
		}
	}
	if want := (Head{Start: 1, Settled: 50, Intervals: []Interval{{10, 12, 1}}, Excused: Ranges{{8, 9}, {13, 14}}, Late: Ranges{{5, 9}}, Missing: Ranges{{5, 9}}}); !reflect.DeepEqual(clean(h), want) {
		t.Errorf("%+v, want %+v", h, want)
	}
	// What is missing below Start is accepted as a whole or not at all.
	h = &Head{Start: 40, Settled: 50, Lost: 3}
	for _, c := range []struct {
		n    Note
		want uint64
	}{
		{Note{Range: Range{1, 38}, Kind: NoteAccepted}, 3},
		{Note{Range: Range{2, 50}, Kind: NoteAccepted}, 3},
		{Note{Range: Range{1, 39}, Kind: NoteLate}, 3},
		{Note{Range: Range{1, 39}, Kind: NoteAccepted}, 0},
	} {
		if Enter(h, &c.n); h.Lost != c.want {
			t.Errorf("%+v: %d are lost, want %d", c.n, h.Lost, c.want)
		}
	}
	for _, k := range []NoteKind{NoteLate, NoteMissing, NoteAccepted} {
		h := &Head{Start: 1, Settled: 1 << 40}
		for i := range uint64(maxExcused + 5) {
			Enter(h, &Note{Range: Range{3 * (i + 1), 3 * (i + 1)}, Kind: k})
		}
		set := map[NoteKind]Ranges{NoteLate: h.Late, NoteMissing: h.Missing, NoteAccepted: h.Excused}[k]
		if len(set) != maxExcused || set[0].First != 18 {
			t.Errorf("kind %d: %d ranges from %v, want %d from 18", k, len(set), set[0], maxExcused)
		}
	}
}

// TestLossesGrowOld: in a stream whose messages are tried again and again, what was lost is missing
// since about when it was settled, however many steps the head has seen since.
func TestLossesGrowOld(t *testing.T) {
	const pages, lost, second = 110, 300, 1000
	b := newBench(t)
	b.e.Birth, b.e.Group.Mark = -1<<40, -1 // both before the stream was opened
	begun := b.e.Now
	for n := uint64(1); n <= 64*pages; n++ {
		b.e.Now += second
		if n != lost {
			b.wants("", b.request(n, func(r *Request) {
				r.Settled, r.SealedAt, r.FreshUntil, r.RetryWindow = n-1, b.e.Now, 1<<60, 1<<40
			}), Done)
			kind := Consume
			if n%8 == 0 {
				kind = Release
			}
			b.finish(n, kind, Done)
		}
		if n%64 == 0 {
			b.settle(b.s.pages[n/64-1])
		}
	}
	if n := len(b.s.head.Steps); n > MaxIntervals {
		t.Errorf("%d steps", n)
	}
	for _, m := range Count(b.e, Key{}, b.s.head, slices.Collect(maps.Values(b.s.pages))).Missing {
		if m.Range == (Range{lost, lost}) {
			if s := (m.Since - begun) / second; s <= lost || s > lost+64 {
				t.Errorf("what was settled after %d s is missing since %d s", lost+1, s)
			}
			return
		}
	}
	t.Error("the loss is not listed")
}

// TestCountOfVeryMany: the account of eight times as many messages that wait for a retry, are parked
// or void, or were lost takes about eight times as much memory, and not 64 times. BenchmarkCount has the time.
func TestCountOfVeryMany(t *testing.T) {
	allocated := func(pages uint64) uint64 {
		h := &Head{Start: 1 + pages*MaxSpan/2, Intervals: []Interval{{1 + pages*MaxSpan, 2 * pages * MaxSpan, 1}}, Settled: 2 * pages * MaxSpan}
		all := make([]*Page, pages)
		for i := range all {
			p := NewPage(&Group{}, nil, uint64(i), MaxSpan) //nolint:gosec // G115: small
			for o := range uint64(MaxSpan / 16) {
				n := p.first() + 16*o
				p.setConsumed(Range{n, n + 10})
				p.insert(len(p.records), record{offset: p.offset(n + 12), status: released, changed: 5})
				p.insert(len(p.records), record{offset: p.offset(n + 14), status: parked})
				p.excuse(Range{n + 14, n + 15})
			}
			for k := range uint64(maxSteps) {
				p.steps = append(p.steps, Step{p.first() + MaxSpan/maxSteps*k, int64(uint64(i)*maxSteps + k)}) //nolint:gosec // G115: small
			}
			h.Hold(p)
			if i%2 == 1 {
				p.records = nil // not open any more, and not folded yet
			}
			all[len(all)-1-i] = p
		}
		h.Apart = Ranges{{1, pages * MaxSpan}}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		a := Count(&Env{}, Key{}, h, all)
		runtime.ReadMemStats(&after)
		if waiting := pages / 2 * MaxSpan / 16; uint64(len(a.Missing)) < waiting {
			t.Fatalf("%d runs are missing, want %d at least", len(a.Missing), waiting)
		}
		return after.TotalAlloc - before.TotalAlloc
	}
	if few, many := allocated(64), allocated(512); many > 10*few {
		t.Errorf("%d bytes, and %d of eight times as many", few, many)
	}
}

// TestNotesOfManyLosses: what was reported stays so, although more runs of a stream are missing than
// a head has notes; and no loss between them counts as reported.
func TestNotesOfManyLosses(t *testing.T) {
	for _, k := range []NoteKind{NoteLate, NoteMissing} {
		h := &Head{Start: 1, Settled: 10} // pages settle more
		for i := range uint64(MaxIntervals) {
			h.add(Interval{2 * i, 2 * i, 1})
		}
		h.Intervals = h.Intervals[1:]
		h.add(Interval{2 * MaxIntervals, 2 * MaxIntervals, 1})
		h.excuse(Range{101, 101})
		fresh := func(n uint64) uint64 { return Enter(h, &Note{Range: Range{n, n}, Kind: k}) }
		for n := uint64(3); n < 2*MaxIntervals; n += 2 {
			if n != 101 && n != 501 && fresh(n) != 1 {
				t.Fatalf("kind %d: %d was reported before", k, n)
			}
		}
		for n := uint64(4*MaxIntervals + 1); n < 4*MaxIntervals+100; n += 2 {
			fresh(n)
		}
		if h.prune(); len(h.Late)+len(h.Missing) > maxExcused {
			t.Errorf("kind %d: %d notes", k, len(h.Late)+len(h.Missing))
		}
		for n := uint64(3); n < 2*MaxIntervals; n += 2 {
			if got := fresh(n); n != 101 && (got == 1) != (n == 501) {
				t.Fatalf("kind %d: %d of %d is reported again", k, got, n)
			}
		}
	}
}

// TestAcceptedBelowStart: to accept what is lost below Start accepts no message that a receiver has in hand or
// that waits for a retry, in a page apart: it may still be lost. That holds for an acceptance that is repeated.
func TestAcceptedBelowStart(t *testing.T) {
	b := newBench(t)
	b.e.Birth = -1 << 40
	handle := func(n uint64, kind Kind) {
		b.wants("", b.request(n, func(r *Request) {
			r.Settled, r.SealedAt, r.FreshUntil, r.RetryWindow = n-1, testNow+int64(n), 2*testNow, 1<<40 //nolint:gosec // G115: small
		}), Done)
		if kind != 0 {
			b.finish(n, kind, Done)
		}
	}
	const waiting, inHand = 10, 12
	for n := uint64(1); n <= 64; n++ {
		switch n {
		case waiting:
			handle(n, Release)
		case inHand:
			handle(n, 0)
		default:
			handle(n, Consume)
		}
	}
	settle := func(i uint64) {
		if b.settle(b.s.pages[i]) {
			delete(b.s.pages, i)
		}
	}
	settle(0)
	for i := uint64(1); i <= 50; i++ { // every second one is lost
		for n := 64*i + 1; n <= 64*i+64; n += 2 {
			handle(n, Consume)
		}
		settle(i)
	}
	count := func() Account { return Count(b.e, Key{}, b.s.head, slices.Collect(maps.Values(b.s.pages))) }
	has := func(a Account, n uint64) bool {
		return slices.ContainsFunc(a.Missing, func(m Missing) bool { return m.Range.First <= n && n <= m.Range.Last })
	}
	a := count()
	if a.Lost == 0 || a.Start <= 64 || !has(a, waiting) || has(a, inHand) {
		t.Fatalf("lost %d, start %d, %v %v", a.Lost, a.Start, has(a, waiting), has(a, inHand))
	}
	for i, want := range []uint64{a.Start - 1, 0} {
		b.s.head.Dirty = false
		if got := Enter(b.s.head, &Note{Range: Range{1, a.Start - 1}, Kind: NoteAccepted}); got != want || b.s.head.Dirty != (i == 0) {
			t.Errorf("accepted for the %dth time: %d are new, want %d", i+1, got, want)
		}
	}
	b.e.Now += testLease + 1 // the receiver crashed; neither message comes ever again
	if a := count(); a.Lost != 0 || !has(a, inHand) || !has(a, waiting) {
		t.Errorf("lost %d; reported of what was in hand: %v, of what waited: %v", a.Lost, has(a, inHand), has(a, waiting))
	}
	// From Start on a range accepts what it names.
	if Enter(b.s.head, &Note{Range: Range{1, a.Settled}, Kind: NoteAccepted}); len(count().Missing) != 2 {
		t.Errorf("missing after all from Start on is accepted: %v", count().Missing)
	}
}

// voidsOf returns the pages of a sender each of whose messages says of eight single sequences that they
// are void, which descend from page to page: the worst order to take them over one by one.
func voidsOf(pages uint64) []*Page {
	const begin, each = uint64(1) << 40, 64
	low := begin
	all := make([]*Page, pages)
	for i := range all {
		p := NewPage(&Group{}, nil, begin/64+uint64(i), 64) //nolint:gosec // G115: small
		p.setConsumed(p.covers())
		p.Settled = p.covers().Last - 1
		low -= 16*each + 32
		for n := range uint64(8 * each) {
			p.excuse(Range{low + 2*n, low + 2*n})
		}
		all[i] = p
	}
	return all
}

// TestCountOfVoids: what pages hold is collected once, piece by piece, for one sort, and none is taken over
// into what was collected before: that would be quadratic in what a hostile sender says.
func TestCountOfVoids(t *testing.T) {
	all := voidsOf(40)
	h := &Head{Start: 1 << 39, Intervals: []Interval{{1 << 39, 1<<39 + 9, 1}}, Excused: Ranges{{1<<39 + 20, 1<<39 + 29}}}
	x := gather(&Env{}, Key{}, h, all)
	pieces, one := 1, slices.Clone(h.Excused)
	for _, p := range all {
		pieces += len(p.excused)
		for _, r := range p.excused {
			one = one.Add(r)
		}
	}
	if len(x.excused) != pieces || pieces != 1+40*512 || len(x.consumed) != 41 {
		t.Errorf("%d excused pieces, %d consumed; want %d and 41", len(x.excused), len(x.consumed), pieces)
	}
	if got := union(x.excused); !slices.Equal(got, one) {
		t.Errorf("%d ranges in the end, want %d", len(got), len(one))
	}
	a := Count(&Env{}, Key{}, h, all)
	if want := uint64(40*64 + 10); a.Consumed != want || !a.Implausible {
		t.Errorf("%+v, want %d consumed, and more missing than is plausible", a, want)
	}
}

// BenchmarkCount is what the account of a stream costs for each range that its pages hold: about the same for
// few and for many.
func BenchmarkCount(b *testing.B) {
	for _, pages := range []uint64{16, 64, 256} {
		b.Run(fmt.Sprint("pages=", pages), func(b *testing.B) {
			all := voidsOf(pages)
			h := &Head{Start: 1}
			for b.Loop() {
				Count(&Env{}, Key{}, h, all)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(512*pages), "ns/range")
		})
	}
}
