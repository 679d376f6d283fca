package replaystate

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestRanges holds the set operations against a plain set.
func TestRanges(t *testing.T) {
	const top = 40
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // G404: a schedule, not a secret
		draw := func() Range {
			a := 1 + r.Uint64N(top)
			return Range{a, min(top, a+r.Uint64N(6))}
		}
		var s, u Ranges
		plain, other := map[uint64]bool{}, map[uint64]bool{}
		each := func(g Range, f func(n uint64)) {
			for n := g.First; n <= g.Last; n++ {
				f(n)
			}
		}
		for range 12 {
			g := draw()
			switch r.IntN(3) {
			case 0:
				s = s.Sub(g)
				each(g, func(n uint64) { delete(plain, n) })
			case 1:
				s = s.Add(g)
				each(g, func(n uint64) { plain[n] = true })
			case 2:
				u = u.Add(g)
				each(g, func(n uint64) { other[n] = true })
			}
			both, only := s.Common(u), s.Without(u)
			for n := uint64(1); n <= top; n++ {
				if s.Has(n) != plain[n] || both.Has(n) != (plain[n] && other[n]) || only.Has(n) != (plain[n] && !other[n]) {
					t.Fatalf("seed %d: %v and %v: wrong about %d", seed, s, u, n)
				}
			}
			within := uint64(0)
			each(g, func(n uint64) {
				if plain[n] {
					within++
				}
			})
			if s.Count() != uint64(len(plain)) || s.Within(g) != within {
				t.Fatalf("seed %d: %v has %d, within %v %d; want %d, %d", seed, s, s.Count(), g, s.Within(g), len(plain), within)
			}
			for _, s := range []Ranges{s, both, only} {
				for i := range s {
					if s[i].First > s[i].Last || i > 0 && s[i].First <= s[i-1].Last+1 {
						t.Fatalf("seed %d: %v overlaps, touches or descends", seed, s)
					}
				}
			}
		}
	}
}

// TestRangesAddNothing: what is no range of sequences adds none, and takes none away.
func TestRangesAddNothing(t *testing.T) {
	for _, r := range []Range{{0, 0}, {0, 9}, {9, 8}, {1, 0}} {
		if s := (Ranges{{5, 6}}).Add(r); len(s) != 1 || s[0] != (Range{5, 6}) {
			t.Errorf("with %v: %v, want what there was", r, s)
		}
	}
	for _, r := range []Range{{9, 8}, {1, 0}, {21, 20}} {
		if s := (Ranges{{5, 20}}).Sub(r); len(s) != 1 || s[0] != (Range{5, 20}) {
			t.Errorf("without %v: %v, want what there was", r, s)
		}
	}
	if s := Ranges(nil).Add(Range{1, 1}); len(s) != 1 || s[0] != (Range{1, 1}) {
		t.Errorf("the first sequence: %v", s)
	}
}

// TestUnion: ranges in any order make the set that they make one after the other.
func TestUnion(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 5)) //nolint:gosec // G404: a schedule, not a secret
		var all []Range
		var want Ranges
		for range r.IntN(40) {
			first := r.Uint64N(100)
			one := Range{first, first + r.Uint64N(8) - min(first, r.Uint64N(3))}
			all, want = append(all, one), want.Add(one)
		}
		if got := union(all); !slices.Equal(got, want) {
			t.Fatalf("seed %d: %v, want %v", seed, got, want)
		}
	}
	if got := union([]Range{{5, 9}, {0, 9}, {3, 2}, {1, 4}, {6, 7}}); !slices.Equal(got, Ranges{{1, 9}}) {
		t.Errorf("%v, want 1 to 9", got)
	}
}
