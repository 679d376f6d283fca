package replaystate

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// plainStream is a Stream that keeps what it is given.
type plainStream struct {
	head  *Head
	pages map[uint64]*Page
}

func (s *plainStream) Head() *Head             { return s.head }
func (s *plainStream) Page(index uint64) *Page { return s.pages[index] }
func (s *plainStream) Add(h *Head, p *Page)    { s.head, s.pages[p.Index] = h, p }

// turnOver puts everything through its encoding, and folds and tidies at random.
func (s *plainStream) turnOver(t *testing.T, r *rand.Rand, e *Env) {
	t.Helper()
	if s.head == nil {
		return
	}
	for index, p := range s.pages {
		b := AppendPage(nil, p)
		q, err := DecodePage(b, index, e.Span)
		if err != nil || !bytes.Equal(b, AppendPage(nil, q)) {
			t.Fatalf("a page does not survive its encoding: %v", err)
		}
		s.pages[index] = q
		q.Expire(e.Now)
		if r.IntN(3) > 0 {
			continue
		}
		s.head.Fold(q)
		s.head.Tidy(e.Group.Time(e.Now), 1<<40)
		if q.Folded() {
			delete(s.pages, index)
		}
	}
	b := AppendHead(nil, s.head)
	h, err := DecodeHead(b)
	if err != nil || !bytes.Equal(b, AppendHead(nil, h)) {
		t.Fatalf("a head does not survive its encoding: %v", err)
	}
	s.head = h
}

// TestNothingForgotten: whatever is folded, frozen, tidied and closed, what was
// consumed is not granted again, and what was not consumed and is newer than the
// mark is.
func TestNothingForgotten(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 2)) //nolint:gosec // G404: a schedule, not a secret
		e := &Env{Now: 1 << 40, Birth: 1, Group: &Group{}, Span: 64 << r.IntN(5), ParkedTTL: 1 << 30}
		s := &plainStream{pages: map[uint64]*Page{}}
		consumed := map[uint64]bool{}
		top := 1 + r.Uint64N(6000)
		for range 400 {
			e.Now += r.Int64N(2000)
			n := 1 + r.Uint64N(top)
			q := &Request{
				Sequence: n, SealedAt: e.Now, FreshUntil: e.Now, Now: e.Now, RetryWindow: 1 << 30, Lease: 10,
				Token: [16]byte{byte(r.Uint32()), byte(r.Uint32()), 1}, Settled: n - 1, Reach: 1000,
			}
			if n > 2 && r.IntN(4) == 0 {
				q.Void = []Range{{n - 1, n - 1}}
			}
			c := Begin(e, s, q)
			switch {
			case c.Outcome == Done && consumed[n]:
				t.Fatalf("seed %d: %d is granted, although it is consumed", seed, n)
			case c.Outcome == Done && r.IntN(4) == 0:
				// Consumed in a transaction, which commits whatever became of the claim.
				if r.IntN(2) == 0 {
					End(e, s, &Finish{Sequence: n, Token: q.Token, Kind: []Kind{Release, Park}[r.IntN(2)]})
				}
				if r.IntN(3) == 0 {
					e.Now += 1 << 31 // past the time of its record
					s.turnOver(t, r, e)
				}
				Complete(e, s, &Completion{Sequence: n, Token: q.Token, At: e.Now})
				if out := Held(e, s, &Finish{Sequence: n, Token: q.Token}); out != Handled {
					t.Fatalf("seed %d: %d is held as %d after it was completed", seed, n, out)
				}
				consumed[n] = true
			case c.Outcome == Done:
				kind := []Kind{Consume, Consume, Consume, Release, Park}[r.IntN(5)]
				if out := Held(e, s, &Finish{Sequence: n, Token: q.Token}); out != Done {
					t.Fatalf("seed %d: %d is not held: %d", seed, n, out)
				}
				if out := End(e, s, &Finish{Sequence: n, Token: q.Token, Kind: kind}); out != Done {
					t.Fatalf("seed %d: %d does not end: %d", seed, n, out)
				}
				consumed[n] = consumed[n] || kind == Consume
			case c.Outcome != Busy && !consumed[n]:
				t.Fatalf("seed %d: %d is refused (%d), although it is fresh and not consumed", seed, n, c.Outcome)
			}
			if r.IntN(10) == 0 {
				s.turnOver(t, r, e)
			}
		}
	}
}

// TestForgottenIsMarked: with more gaps than a head holds, what is forgotten was
// sealed no later than the mark; void gaps are closed before that.
func TestForgottenIsMarked(t *testing.T) {
	for _, void := range []bool{false, true} {
		h := &Head{Start: 1}
		p := func(n uint64) *Page {
			p := NewPage(&Group{}, h, IndexOf(n, 64), 64)
			p.setConsumed(Range{n, n})
			p.Newest = max(p.Newest, int64(n)) //nolint:gosec // G115: small
			p.Settled = n - 1
			if void && n > 1 {
				p.excuse(Range{n - 1, n - 1})
			}
			return p
		}
		const gaps = 2000
		for n := uint64(1); n <= 2*gaps; n += 2 {
			h.Fold(p(n))
			if n%20 != 1 {
				continue
			}
			h.Tidy(0, 0)
			if len(h.Intervals) > MaxIntervals || len(h.Excused) > maxExcused || len(h.Steps) > MaxIntervals {
				t.Fatalf("%d intervals, %d excused, %d steps", len(h.Intervals), len(h.Excused), len(h.Steps))
			}
		}
		h.Tidy(0, 0)
		for n := uint64(1); n <= 2*gaps; n += 2 {
			if !h.has(n) && int64(n) > h.Mark { //nolint:gosec // G115: small
				t.Fatalf("void %v: %d is neither known nor below the mark %d", void, n, h.Mark)
			}
		}
		if void && (h.Mark != 0 || h.Lost != 0 || len(h.missing()) != 0) {
			t.Errorf("void gaps: mark %d, %d lost, missing %v", h.Mark, h.Lost, h.missing())
		}
		if missing := h.Lost + h.missing().Count(); !void && missing != gaps-1 {
			t.Errorf("%d lost and %d missing, want %d together", h.Lost, h.missing().Count(), gaps-1)
		}
	}
}

// TestSteps: no sequence counts as settled before it was.
func TestSteps(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 3)) //nolint:gosec // G404: a schedule, not a secret
		var steps []Step
		var log []Step
		now, settled := int64(0), uint64(0)
		for range 300 {
			now += r.Int64N(3000)
			settled += 1 + r.Uint64N(5)
			log = append(log, Step{settled, now})
			steps = addStep(steps, log[len(log)-1])
		}
		if len(steps) > maxSteps {
			t.Fatalf("%d steps", len(steps))
		}
		for i, l := range log {
			if i > 0 && l.At < log[i-1].At {
				t.Fatal("the log descends")
			}
			for _, s := range steps {
				if s.Settled >= l.Settled {
					if s.At < l.At {
						t.Fatalf("seed %d: %d settled at %d, in truth at %d", seed, l.Settled, s.At, l.At)
					}
					break
				}
			}
		}
	}
}

// TestDamaged: no damaged encoding panics or takes much memory.
func TestDamaged(t *testing.T) {
	e := &Env{Now: 1 << 40, Birth: 1, Group: &Group{}, Span: 128, ParkedTTL: 1}
	s := &plainStream{pages: map[uint64]*Page{}}
	for n := uint64(1); n < 60; n++ {
		q := &Request{Sequence: n, SealedAt: e.Now, FreshUntil: e.Now, Now: e.Now, Lease: 1, RetryWindow: 1, Token: [16]byte{1}, Settled: n - 1}
		Begin(e, s, q)
		if n%3 > 0 {
			End(e, s, &Finish{Sequence: n, Token: q.Token, Kind: Consume})
		}
	}
	page := AppendPage(nil, s.pages[0])
	s.head.Fold(s.pages[0])
	head := AppendHead(nil, s.head)
	r := rand.New(rand.NewPCG(4, 4)) //nolint:gosec // G404: damage, not a secret
	for range 5000 {
		for _, b := range [][]byte{page, head} {
			d := bytes.Clone(b)[:1+r.IntN(len(b))]
			for range r.IntN(4) {
				d[r.IntN(len(d))] = byte(r.Uint32())
			}
			_, _ = DecodePage(d, 0, 128)
			_, _ = DecodeHead(d)
			_, _ = DecodeGroup(d)
		}
	}
	for n := range page {
		if _, err := DecodePage(page[:n], 0, 128); err == nil {
			t.Errorf("a page cut to %d of %d bytes is accepted", n, len(page))
		}
	}
	if _, err := DecodePage(page, 0, 64); err == nil {
		t.Error("a page of another span is accepted")
	}
}
