package replaystate

import (
	"cmp"
	"slices"
)

// Range is the sequences from First to Last, both included.
type Range struct{ First, Last uint64 }

// Len returns the number of sequences in the range.
func (r Range) Len() uint64 { return r.Last - r.First + 1 }

// Ranges is a set of sequences: ascending ranges that neither overlap nor touch.
type Ranges []Range

// union returns the set of all sequences of some ranges, in whatever order they are. It takes the
// slice over. A range whose First is 0 or above its Last adds nothing.
func union(all []Range) Ranges {
	slices.SortFunc(all, func(a, b Range) int { return cmp.Compare(a.First, b.First) })
	out := all[:0]
	for _, r := range all {
		n := len(out)
		switch {
		case r.First == 0 || r.First > r.Last:
		case n > 0 && r.First <= out[n-1].Last+1:
			out[n-1].Last = max(out[n-1].Last, r.Last)
		default:
			out = append(out, r)
		}
	}
	return out
}

// search returns the index of the first range that ends at or after n.
func (s Ranges) search(n uint64) int {
	i, _ := slices.BinarySearchFunc(s, n, func(r Range, n uint64) int {
		if r.Last < n {
			return -1
		}
		return 1
	})
	return i
}

// Has reports whether the set contains n.
func (s Ranges) Has(n uint64) bool {
	i := s.search(n)
	return i < len(s) && s[i].First <= n
}

// Add returns the set with r added. It may change s in place. A range whose First
// is 0 or above its Last adds nothing.
func (s Ranges) Add(r Range) Ranges {
	if r.First == 0 || r.First > r.Last {
		return s
	}
	// Also merge with a range that touches r.
	i := s.search(r.First - 1)
	j := i
	for j < len(s) && s[j].First <= r.Last+1 {
		r.First, r.Last = min(r.First, s[j].First), max(r.Last, s[j].Last)
		j++
	}
	if j == i {
		return slices.Insert(s, i, r)
	}
	s[i] = r
	return slices.Delete(s, i+1, j)
}

// Sub returns the set without the sequences of r. It may change s in place.
func (s Ranges) Sub(r Range) Ranges {
	if r.First > r.Last {
		return s
	}
	i := s.search(r.First)
	if i == len(s) || s[i].First > r.Last {
		return s
	}
	if s[i].First < r.First && s[i].Last > r.Last {
		rest := Range{r.Last + 1, s[i].Last}
		s[i].Last = r.First - 1
		return slices.Insert(s, i+1, rest)
	}
	if s[i].First < r.First {
		s[i].Last = r.First - 1
		i++
	}
	j := i
	for j < len(s) && s[j].Last <= r.Last {
		j++
	}
	if j < len(s) && s[j].First <= r.Last {
		s[j].First = r.Last + 1
	}
	return slices.Delete(s, i, j)
}

// Count returns how many sequences the set has.
func (s Ranges) Count() (n uint64) {
	for _, r := range s {
		n += r.Len()
	}
	return n
}

// Within returns how many sequences of r the set has.
func (s Ranges) Within(r Range) (n uint64) {
	for i := s.search(r.First); i < len(s) && s[i].First <= r.Last; i++ {
		n += Range{max(s[i].First, r.First), min(s[i].Last, r.Last)}.Len()
	}
	return n
}

// Without returns a new set of what is in s and not in t.
func (s Ranges) Without(t Ranges) Ranges {
	if len(s) == 0 {
		return nil
	}
	out := make(Ranges, 0, len(s))
	j := t.search(s[0].First)
	for _, r := range s {
		for ; j < len(t) && t[j].Last < r.First; j++ {
		}
		for ; j < len(t) && t[j].Last <= r.Last; j++ {
			if t[j].First > r.First {
				out = append(out, Range{r.First, t[j].First - 1})
			}
			r.First = t[j].Last + 1
		}
		if j < len(t) && t[j].First <= r.Last {
			r.Last = t[j].First - 1 // t[j] goes beyond r, and perhaps into the next one
		}
		if r.First <= r.Last {
			out = append(out, r)
		}
	}
	return out
}

// Common returns a new set of what is in both.
func (s Ranges) Common(t Ranges) Ranges {
	if len(s) == 0 || len(t) == 0 {
		return nil
	}
	var out Ranges
	for i, j := s.search(t[0].First), t.search(s[0].First); i < len(s) && j < len(t); {
		r := Range{max(s[i].First, t[j].First), min(s[i].Last, t[j].Last)}
		if r.First <= r.Last {
			out = append(out, r)
		}
		if s[i].Last < t[j].Last {
			i++
		} else {
			j++
		}
	}
	return out
}
