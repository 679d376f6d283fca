package stream

import (
	"crypto/rand"
	"encoding/binary"
)

// ID names a stream: 48 bits of Unix milliseconds at which it was opened, and 80
// random bits (qre1, Section 2.6).
type ID = [16]byte

const (
	// maxSequence is the last number of a stream (qre1, Section 2.6).
	maxSequence = 1<<53 - 1
	// maxWindow is how many sequences a plain stream keeps, from the first that is
	// not settled on. A stream that reaches it is replaced: 64 KiB of memory.
	maxWindow = 1 << 16
	// maxWindowUnknown is the same for a stream that cannot settle any more,
	// because what became of a message is unknown. It is large enough that a
	// failing broker does not cost receivers a stream for each message.
	maxWindowUnknown = 256
)

// state is what is known of one sequence.
type state uint8

const (
	outstanding state = iota
	confirmed
	void
	unknown
)

// series is one stream. The mutex of its Streams guards it.
type series struct {
	id    ID
	loose bool
	next  uint64 // the sequence to give out

	// What follows is for plain streams.
	settled  uint64  // every sequence up to it is confirmed, or void and in voids
	window   []state // of settled+1 and on
	unknowns int
	voids    voidList
	sessions sessions
}

func newSeries(wall int64, loose bool) *series {
	s := &series{loose: loose, next: 1}
	binary.BigEndian.PutUint64(s.id[:8], uint64(wall)<<16) //nolint:gosec // G115: 48 bits last beyond the year 10000
	_, _ = rand.Read(s.id[6:])                             // never fails: it ends the process instead
	return s
}

// full reports whether the stream gives out no more sequences.
func (s *series) full() bool {
	return s.next > maxSequence || len(s.window) >= maxWindow || s.unknowns > 0 && len(s.window) >= maxWindowUnknown
}

// take gives out the next sequence.
func (s *series) take() uint64 {
	n := s.next
	s.next++
	if !s.loose {
		s.window = append(s.window, outstanding)
	}
	return n
}

// settle notes what became of an outstanding sequence, and moves settled on. It
// reports false if that was known already.
func (s *series) settle(sequence uint64, to state) bool {
	if s.loose || sequence <= s.settled || s.window[sequence-s.settled-1] != outstanding {
		return false
	}
	s.window[sequence-s.settled-1] = to
	if to == unknown {
		s.unknowns++
	}
	return true
}

// advance moves settled over all that is confirmed, and all that is void and can
// be said.
func (s *series) advance() {
	i := 0
	for i < len(s.window) {
		switch s.window[i] {
		case confirmed:
			i++
			continue
		case void:
			end := i
			for end < len(s.window) && s.window[end] == void {
				end++
			}
			first := s.settled + uint64(i) + 1                      //nolint:gosec // G115: not negative
			if s.voids.add(Range{first, s.settled + uint64(end)}) { //nolint:gosec // G115
				i = end
				continue
			}
		}
		break
	}
	s.settled += uint64(i) //nolint:gosec // G115: not negative
	s.window = s.window[i:]
}
