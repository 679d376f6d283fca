package replaystate

import (
	"reflect"
	"testing"
)

// TestPageOfAHead: a page that is made again knows what the head has of it, and no more.
func TestPageOfAHead(t *testing.T) {
	h := &Head{Mark: 8, Intervals: []Interval{{60, 65, 10}, {100, 100, 30}, {128, 140, 20}, {200, 210, 99}}}
	p := NewPage(&Group{Mark: 3}, h, 1, 64)
	var runs []Range
	p.runs(func(r Range) { runs = append(runs, r) })
	if want := []Range{{65, 65}, {100, 100}, {128, 128}}; !reflect.DeepEqual(runs, want) || p.Newest != 30 || p.Mark != 8 || !p.New {
		t.Errorf("%v, newest %d, mark %d; want %v", runs, p.Newest, p.Mark, want)
	}
	if p := NewPage(&Group{Mark: 3}, nil, 1, 64); p.Mark != 3 || !p.New || p.span() != 64 {
		t.Errorf("of no head: %+v", p)
	}
	if p := NewPage(&Group{}, &Head{Intervals: []Interval{{192, 192, 5}, {193, 400, 6}}}, 2, 64); p.Newest != 5 {
		t.Errorf("the newest of the page behind it: %d", p.Newest)
	}
}

// TestStepsOfAPage: a second is one step, a clock that was set back moves nothing, and beyond
// maxSteps the two that are closest become one.
func TestStepsOfAPage(t *testing.T) {
	for name, c := range map[string]struct {
		steps []Step
		add   Step
		want  []Step
	}{
		"first":            {nil, Step{3, 500}, []Step{{3, 500}}},
		"in one second":    {[]Step{{3, 1000}}, Step{4, 1999}, []Step{{4, 1999}}},
		"in the next":      {[]Step{{3, 1999}}, Step{4, 2000}, []Step{{3, 1999}, {4, 2000}}},
		"a clock set back": {[]Step{{3, 5000}}, Step{4, 100}, []Step{{4, 5000}}},
	} {
		if got := addStep(c.steps, c.add); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	for _, closest := range []int{0, 1, 30, maxSteps - 1} { // the distance behind it is the smallest
		var steps, want []Step
		at := int64(0)
		for i := range maxSteps + 1 {
			steps = append(steps, Step{uint64(i + 1), at}) //nolint:gosec // G115: small
			if i != closest {
				want = append(want, steps[i])
			}
			if at += 10_000; i == closest {
				at -= 5000
			}
		}
		last := steps[maxSteps]
		if got := addStep(steps[:maxSteps:maxSteps], last); !reflect.DeepEqual(got, want) {
			t.Errorf("the distance behind step %d is the smallest: %v, want %v", closest, got, want)
		}
	}
	var even []Step
	for i := range maxSteps {
		even = append(even, Step{uint64(i + 1), int64(i) * 10_000}) //nolint:gosec // G115: small
	}
	if got := addStep(even, Step{maxSteps + 1, maxSteps * 10_000}); len(got) != maxSteps || got[0].Settled != 2 || got[1].Settled != 3 {
		t.Errorf("of distances that are equal, the first is given up: %v", got)
	}
}

// TestPageDue: a page is looked at when its tags may go, and then when its first record is past
// its time.
func TestPageDue(t *testing.T) {
	p := &Page{records: []record{{offset: 1, status: released, keep: 90}, {offset: 2, status: claimed, keep: 10, changed: 60, lease: 20}, {offset: 3, status: parked, keep: 95}}}
	if p.Due() != 80 {
		t.Errorf("due at %d, want 80", p.Due())
	}
	if p.quiet = 50; p.Due() != 50 {
		t.Errorf("with something that the head is to learn: due at %d, want 50", p.Due())
	}
	if p.Foldable(49) || !p.Foldable(50) {
		t.Error("it folds at another time than 50")
	}
	p.steps = []Step{{1, 1}}
	if p.Due() != 50 {
		t.Errorf("with a step: due at %d, want 50", p.Due())
	}
	if p.Turn(0) != p.Next(0)+Untagged {
		t.Error("without a tag it has the turn of one with tags")
	}
	p.steps, p.recents = nil, []recent{{}}
	if p.Due() != 50 || p.Recents() != 1 || p.Records() != 3 {
		t.Errorf("with a tag: due at %d, want 50", p.Due())
	}
	if p.Turn(0) != p.Next(0) {
		t.Error("with a tag it has the turn of one without")
	}
	if p.Folded() || len(p.recents) != 0 || p.quiet != 0 || !p.Dirty {
		t.Errorf("folded: %+v", p)
	}
	if minute := int64(60_000); p.Next(0) != minRecent || p.Next(1) != minRecent+minute {
		t.Errorf("looked at again at %d and %d, want %d and a minute later", p.Next(0), p.Next(1), minRecent)
	}
	if p.records[1].keep = 2*minRecent + 1; p.Next(0) != minRecent {
		t.Errorf("looked at again at %d, want %d for the one of 90", p.Next(0), minRecent)
	}
	p.records[1].keep = 10
	p.Dirty = false
	if p.Expire(79); p.Dirty || len(p.records) != 3 {
		t.Errorf("before its time: %+v", p.records)
	}
	if p.Expire(80); !p.Dirty || len(p.records) != 2 || p.records[0].offset != 1 || p.records[1].offset != 3 {
		t.Errorf("at its time: %+v", p.records)
	}
	if p.Expire(95); p.records != nil || !p.Folded() || p.Due() != 0 {
		t.Errorf("all are past their time: %+v", p.records)
	}
}

// TestRunsOfAPage: runs that end and begin at the words of the bits.
func TestRunsOfAPage(t *testing.T) {
	for _, want := range [][]Range{nil, {{1, 1}}, {{1, 64}}, {{64, 65}}, {{1, 192}}, {{65, 128}}, {{2, 63}, {65, 65}, {128, 130}, {192, 192}}} {
		p := NewPage(&Group{}, nil, 0, 192)
		for _, r := range want {
			p.setConsumed(r)
		}
		var got []Range
		p.runs(func(r Range) { got = append(got, r) })
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	}
}

// TestParkedIsNotApart: a page is apart for as long as a message in it may still be lost, however that
// ends, and not for as long as a parked one is remembered; and it is folded once for that.
func TestParkedIsNotApart(t *testing.T) {
	const day = 24 * 60 * 60_000
	lasts := func(r *Request) { r.RetryWindow = day }
	stale := func(r *Request) { r.Now, r.FreshUntil, r.RetryWindow = testNow+2, testNow, 1 }
	for name, end := range map[string]func(b *bench){
		"parked":              func(b *bench) { b.wants("", b.request(2, lasts), Done); b.finish(2, Park, Done) },
		"rejected as too old": func(b *bench) { b.wants("", b.request(2, stale), NotFresh) },
		"past its time and too old": func(b *bench) {
			b.e.Now += day
			b.wants("", b.request(2, stale), NotFresh)
		},
		"void": func(b *bench) {
			b.wants("", b.request(2, func(r *Request) { lasts(r); r.Void = []Range{{2, 2}} }), Done)
			if p := b.s.pages[0]; p.known() || p.Next(b.e.Now)-b.e.Now < day/2 {
				b.Error("the page rests while a handler has the message")
			}
			b.finish(2, Release, Done)
		},
		"parked, never folded": func(b *bench) {
			delete(b.s.pages, 0)
			b.s.head = nil
			b.claimed(2, Park)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.e.ParkedTTL = 15 * day
			b.claimed(1, Park) // the page stays for it
			b.wants("", b.request(2, lasts), Done)
			b.finish(2, Release, Done)
			b.claimed(3, Consume)
			p := b.s.pages[0]
			if b.settle(p); len(b.s.head.Apart) != 1 {
				t.Fatalf("%v are apart", b.s.head.Apart)
			}
			end(b)
			p = b.s.pages[0]
			if wait := p.Next(b.e.Now) - b.e.Now; wait > 2*minRecent {
				t.Fatalf("looked at again in %d minutes", wait/60_000)
			}
			b.e.Now = p.Next(b.e.Now)
			if b.s.head.Settle(p, b.e.Now, 0, 0, false) || len(b.s.head.Apart) > 0 {
				t.Fatalf("%v are apart", b.s.head.Apart)
			}
			if wait := p.Next(b.e.Now) - b.e.Now; wait < day/2 {
				t.Errorf("settled in vain in %d minutes", wait/60_000)
			}
		})
	}
}
