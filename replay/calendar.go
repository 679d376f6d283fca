package replay

import (
	"math"
	"time"
)

// seconds rounds a store time up to whole seconds, from 0 to the largest.
func seconds(t int64) uint32 {
	if t <= 0 {
		return 0
	}
	s := (t-1)/int64(time.Second) + 1
	return uint32(min(s, math.MaxUint32))
}

// over reports whether the end of that second is past.
func over(second uint32, now int64) bool { return now > int64(second)*int64(time.Second) }

// calendar lists records by the second in which they expire, so that dropping
// the next one takes the same time however many there are. It is only ever given
// seconds that are not over.
type calendar struct {
	head  map[uint32]uint32 // second -> first record of its list
	swept uint32            // all seconds before this one are empty
}

func (c *calendar) add(s *slab, second, n uint32) {
	if c.head == nil {
		c.head = make(map[uint32]uint32)
	}
	first, ok := c.head[second]
	rec := s.at(n)
	rec.prev, rec.next = none, none
	if ok {
		rec.next = first
		s.at(first).prev = n
	}
	c.head[second] = n
}

func (c *calendar) remove(s *slab, second, n uint32) {
	rec := s.at(n)
	if rec.next != none {
		s.at(rec.next).prev = rec.prev
	}
	switch {
	case rec.prev != none:
		s.at(rec.prev).next = rec.next
	case rec.next != none:
		c.head[second] = rec.next
	default:
		delete(c.head, second)
	}
}

// first returns a record whose second is over.
func (c *calendar) first(now int64) (uint32, bool) {
	if !over(c.swept, now) {
		return 0, false
	}
	end := seconds(now) // the first second that is not over
	if int64(end-c.swept) > int64(len(c.head)) {
		// Long idle: fewer lists than seconds to walk.
		for second, n := range c.head {
			if second < end {
				return n, true
			}
		}
		c.swept = end
		return 0, false
	}
	for ; c.swept < end; c.swept++ {
		if n, ok := c.head[c.swept]; ok {
			return n, true
		}
	}
	return 0, false
}

// none is no record: a slab never gets there.
const none = math.MaxUint32

// slab gives out records by number. It grows by chunks, so that growing copies
// nothing and wastes little, and keeps what it grew.
type slab struct {
	chunks [][]record
	used   uint32 // records below this number have been given out before
	freed  uint32 // how many of them are free again
	free   uint32 // the first of those; each leads to the next
}

const chunkSize = 512

func (s *slab) at(n uint32) *record { return &s.chunks[n/chunkSize][n%chunkSize] }

func (s *slab) take() uint32 {
	n := s.used
	if s.freed > 0 {
		n = s.free
		s.free = s.at(n).next
		s.freed--
		return n
	}
	if n%chunkSize == 0 {
		s.chunks = append(s.chunks, make([]record, chunkSize))
	}
	s.used++
	return n
}

func (s *slab) give(n uint32) {
	*s.at(n) = record{next: s.free}
	s.free = n
	s.freed++
}
