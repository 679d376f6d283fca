package stream

// Range is a run of sequences, both ends included. It has the fields of
// envelope.Range.
type Range struct{ First, Last uint64 }

const (
	// maxVoid is how many void ranges a message can carry (qre1, Section 2.7).
	maxVoid = 8
	// voidRepeats is how many confirmed messages carry a void range before it is
	// left out: a receiver that loses fewer in a row learns of it.
	voidRepeats = 64
)

// voidRange is a range that messages carry.
type voidRange struct {
	Range
	confirmed int // messages that carried it as it is now
}

// voidList is what messages carry: ascending, disjoint, not adjacent unless one
// of two was left out.
type voidList struct {
	ranges []voidRange
	shared []Range // what ranges says, given out and never changed
}

// add takes in a run of void sequences above all that it has. It reports false if
// there is no room.
func (v *voidList) add(r Range) bool {
	if n := len(v.ranges); n > 0 && v.ranges[n-1].Last+1 == r.First {
		// What messages said of the shorter range stays true.
		v.ranges[n-1] = voidRange{Range: Range{v.ranges[n-1].First, r.Last}}
	} else if n == maxVoid {
		return false
	} else {
		v.ranges = append(v.ranges, voidRange{Range: r})
	}
	v.share()
	return true
}

// confirmed counts a message that carried these ranges, and leaves out what was
// repeated often enough.
func (v *voidList) confirmed(carried []Range) {
	if len(carried) == 0 || len(v.ranges) == 0 {
		return
	}
	kept := v.ranges[:0]
	for _, r := range v.ranges {
		for _, c := range carried {
			if c == r.Range {
				r.confirmed++
				break
			}
		}
		if r.confirmed < voidRepeats {
			kept = append(kept, r)
		}
	}
	if v.ranges = kept; len(kept) != len(v.shared) {
		v.share()
	}
}

// share makes the list that messages carry from now on.
func (v *voidList) share() {
	v.shared = nil
	for _, r := range v.ranges {
		v.shared = append(v.shared, r.Range)
	}
}
