package worker

// slot is the right to run one handler of a queue. It belongs to the goroutine that handles
// one message after the other: for each handled, if it is to be completed, and leave.
type slot struct {
	c        *consumer
	released bool // it was given back, and the message is completed without one
}

// handled gives the slot back when the handler has returned and the message is to be
// completed, so that the next message need not wait for the broker. If as many messages as
// the pool has slots are being completed without one, it keeps the slot: what a crash leaves
// unsettled stays bounded, and a broker that does not answer stops the queue. A nil slot is
// another's to give back.
func (s *slot) handled() {
	if s == nil {
		return
	}
	p := s.c.pool
	if p.completions.Add(1) > int64(p.o.Concurrency) {
		p.completions.Add(-1)
		return
	}
	s.released = true
	p.slots.release(s.c.share, 1)
}

// leave gives back what the message holds once it is settled.
func (s *slot) leave() {
	if s.released {
		s.released = false
		s.c.pool.completions.Add(-1)
		return
	}
	s.c.pool.slots.release(s.c.share, 1)
}
