package replaystate

// Completion says that a message was consumed in a transaction beside the store, by
// the claim with that token. The transaction has committed, so nothing that became of
// the claim meanwhile undoes it.
type Completion struct {
	Key      Key
	Sequence uint64
	Token    [16]byte
	// At is when the transaction entered it, by the store's clock.
	At int64
}

// Complete takes over a completion: the sequence is consumed from then on, whether its
// record was taken over by another claim, was given back or is gone.
func Complete(e *Env, s Stream, c *Completion) {
	p := s.Page(IndexOf(c.Sequence, e.Span))
	// If no record tells any more when the message was sealed: not later than this.
	// Senders, receivers and the store differ by the skew each, and no receiver
	// claims a message from further in the future.
	sealedAt := c.At + 2*e.Group.Skew
	if p == nil {
		h := s.Head()
		if h != nil && h.has(c.Sequence) {
			return
		}
		p = NewPage(e.Group, h, IndexOf(c.Sequence, e.Span), e.Span)
		if h == nil {
			h = NewHead(e, &Request{Key: c.Key, Sequence: c.Sequence, SealedAt: sealedAt})
		}
		s.Add(h, p)
	}
	o := p.offset(c.Sequence)
	if p.consumed(o) {
		return
	}
	if p.known() {
		if h := s.Head(); h != nil {
			h.Hold(p)
		}
	}
	i, known := p.find(o)
	if !known {
		// Its tag is unknown, so that of a copy says nothing.
		p.insert(i, record{offset: o, resealed: true, sealedAt: sealedAt})
	}
	p.records[i].token = c.Token
	p.end(e, i, Consume)
}

// Held says what became of a claim, and changes nothing: Done while its token owns it,
// also if its lease is over; Handled if the message is consumed, else Lost.
func Held(e *Env, s Stream, f *Finish) Outcome {
	h, p := s.Head(), s.Page(IndexOf(f.Sequence, e.Span))
	if p == nil {
		if h != nil && h.has(f.Sequence) {
			return Handled
		}
		return Lost
	}
	o := p.offset(f.Sequence)
	if p.consumed(o) {
		return Handled
	}
	if i, ok := p.find(o); ok && p.records[i].status == claimed && p.records[i].token == f.Token {
		return Done
	}
	return Lost
}
