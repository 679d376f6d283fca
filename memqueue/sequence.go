package memqueue

import "slices"

// sequence keeps messages in the order of their seq, for Peek and the like, which take
// none. Messages are added at the end; a message that is removed leaves a gap.
type sequence struct {
	slots []slot
	live  int
}

type slot struct {
	seq  uint64
	m    *message // nil means a gap
	next int      // of a gap: no slot before next holds a message
}

// gapSlack is how many gaps a sequence may have beyond one a message.
const gapSlack = 64

func (s *sequence) add(m *message) {
	s.slots = append(s.slots, slot{seq: m.seq, m: m})
	s.live++
}

func (s *sequence) remove(m *message) {
	i := s.search(m.seq)
	s.slots[i].m, s.slots[i].next = nil, i+1
	s.live--
	if len(s.slots) > 2*s.live+gapSlack {
		s.slots = slices.DeleteFunc(s.slots, func(v slot) bool { return v.m == nil })
		if cap(s.slots) > 4*(len(s.slots)+gapSlack) {
			s.slots = slices.Clone(s.slots)
		}
	}
}

// search returns the first slot whose seq is at least seq.
func (s *sequence) search(seq uint64) int {
	if len(s.slots) > 0 { // mostly none is missing before it
		if i := seq - s.slots[0].seq; i < uint64(len(s.slots)) && s.slots[i].seq == seq {
			return int(i) //nolint:gosec // G115: below a length
		}
	}
	i, _ := slices.BinarySearchFunc(s.slots, seq, func(v slot, seq uint64) int {
		switch {
		case v.seq < seq:
			return -1
		case v.seq > seq:
			return 1
		}
		return 0
	})
	return i
}

// from returns the first message in slot i or later and its slot, nil if there is
// none. It compresses the path over gaps, so that the next call is faster.
func (s *sequence) from(i int) (*message, int) {
	for i < len(s.slots) {
		v := &s.slots[i]
		if v.m != nil {
			return v.m, i
		}
		if n := v.next; n < len(s.slots) && s.slots[n].m == nil {
			v.next = s.slots[n].next
		}
		i = v.next
	}
	return nil, i
}

// first returns the first message, nil if there is none.
func (s *sequence) first() *message {
	m, _ := s.from(0)
	return m
}

// all returns the messages in order.
func (s *sequence) all() []*message {
	out := make([]*message, 0, s.live)
	for _, v := range s.slots {
		if v.m != nil {
			out = append(out, v.m)
		}
	}
	return out
}
