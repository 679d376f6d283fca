package replaystate

import "testing"

// TestComplete: whatever became of the claim, what a committed transaction says is consumed is, by
// its token, and once.
func TestComplete(t *testing.T) {
	for name, c := range map[string]struct {
		before   func(*bench)
		sealedAt int64   // that the page has to account for; 0 if there is no page
		other    Outcome // of a copy with another tag
	}{
		"no stream":                    {func(*bench) {}, testNow + 20, Duplicate},
		"no record":                    {func(b *bench) { b.claimed(2, 0) }, testNow + 20, Duplicate},
		"claimed":                      {func(b *bench) { b.claimed(1, 0) }, testNow, Collision},
		"claimed by another since":     {func(b *bench) { b.request(1, func(r *Request) { r.Token = token(2) }) }, testNow, Collision},
		"released":                     {func(b *bench) { b.claimed(1, Release) }, testNow, Collision},
		"parked":                       {func(b *bench) { b.claimed(1, Park) }, testNow, Collision},
		"consumed":                     {func(b *bench) { b.claimed(1, Consume) }, testNow, Collision},
		"consumed long ago":            {func(b *bench) { b.claimed(1, Consume); b.claimed(2, 0); b.fold() }, testNow, Reused},
		"consumed long ago, page gone": {func(b *bench) { b.claimed(1, Consume); b.fold() }, 0, Reused},
		"another consumed, page gone":  {func(b *bench) { b.claimed(2, Consume); b.fold() }, testNow + 20, Duplicate},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.e.Group.Skew = 10
			c.before(b)
			if p := b.s.pages[0]; p != nil {
				p.Dirty = false
			}
			done := Held(b.e, b.s, &Finish{Sequence: 1, Token: token(1)}) == Handled
			for again := range 2 {
				Complete(b.e, b.s, &Completion{Sequence: 1, Token: token(1), At: testNow})
				p := b.s.pages[0]
				if b.s.head == nil || (p != nil) != (c.sealedAt != 0) {
					t.Fatalf("head %+v, page %+v; want a page: %v", b.s.head, p, c.sealedAt != 0)
				}
				if p == nil {
					continue
				}
				if !p.consumed(0) || p.Newest != c.sealedAt || p.Dirty == (done || again > 0) {
					t.Errorf("page %+v; want 1 consumed, sealed at %d, and to be saved once", p, c.sealedAt)
				}
				p.Dirty = false
			}
			b.finish(1, Consume, map[bool]Outcome{true: Done, false: Handled}[c.other != Reused])
			if got := End(b.e, b.s, &Finish{Sequence: 1, Token: token(2), Kind: Consume}); got != Handled {
				t.Errorf("the end of another claim: %d, want %d", got, Handled)
			}
			b.wants("a copy with another tag", b.request(1, func(r *Request) { r.Tag = [8]byte{9} }), c.other)
			if l := Examine(b.e, b.s, &Query{Sequence: 1}); l.State != Consumed {
				t.Errorf("state %d, want %d", l.State, Consumed)
			}
		})
	}
}

// TestCompleteBeginsAStream as a claim does: where its key and the time of the message say.
func TestCompleteBeginsAStream(t *testing.T) {
	b := newBench(t)
	b.e.Group.Skew = 10
	old, young := Key{}, Key{}
	young.Stream[0] = 1 // opened long after the store was made
	for _, c := range []struct {
		key   Key
		start uint64
	}{{old, 5}, {young, 1}} {
		b.s = &plainStream{pages: map[uint64]*Page{}}
		Complete(b.e, b.s, &Completion{Key: c.key, Sequence: 5, Token: token(1), At: testNow})
		if h := b.s.head; h.Start != c.start || h.Newest != testNow+20 {
			t.Errorf("start %d, newest %d; want %d, %d", h.Start, h.Newest, c.start, testNow+20)
		}
	}
}
