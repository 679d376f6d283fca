package replaystate

// minRecent is for how long at least the tag of a consumed sequence is kept.
const minRecent = 5 * 60 * 1000

// Begin claims a sequence.
func Begin(e *Env, s Stream, r *Request) Claim {
	e.Group.Ask(r.Reach, r.Skew)
	index := IndexOf(r.Sequence, e.Span)
	p, h := s.Page(index), (*Head)(nil)
	fresh := p == nil // the page is made for this request, and kept if it is granted
	if fresh {
		h = s.Head()
		p = NewPage(e.Group, h, index, e.Span)
	}
	known := p.known()
	c := p.begin(e, r, fresh && h == nil)
	switch c.Outcome {
	case Done:
		switch {
		case fresh && h == nil:
			h = NewHead(e, r)
		case known && !fresh:
			h = s.Head()
		}
		if known && h != nil {
			h.Hold(p)
		}
		if fresh {
			s.Add(h, p)
		}
		p.gap(e, s, r, &c)
	case NotFresh:
		// It arrived, so it is not missing; but a rejected message makes
		// neither a page nor a stream.
		one := Range{r.Sequence, r.Sequence}
		if !fresh {
			p.excuse(one)
		}
		if known { // nothing else tells the head
			excuse(s, one)
		}
	}
	if c.Outcome == Done || c.Outcome == Duplicate { // a page without recent entries finds no duplicates
		p.settle(e, s, r.Settled, r.Void)
	}
	if c.Outcome == Done || !known { // the head holds it apart
		p.rest(e)
	}
	return c
}

// gap finds out whether the previous message was seen. A repeated call answers as
// the first did.
func (p *Page) gap(e *Env, s Stream, r *Request, c *Claim) {
	i, _ := p.find(p.offset(r.Sequence)) // it is there: it was granted
	rec := &p.records[i]
	if !c.repeated {
		rec.gap = r.Previous > 0 && !seen(e, s, r.Previous)
	}
	c.Gap = rec.gap
}

// begin decides on a request of this page. stream says that the stream would have
// to be made.
func (p *Page) begin(e *Env, r *Request, stream bool) Claim {
	o := p.offset(r.Sequence)
	if p.consumed(o) {
		out := p.copied(o, r)
		if out == Duplicate {
			// One copy announces others: a broker that fails goes on repeating
			// what it was told to remove.
			p.stay(e, r.Lease)
		}
		return Claim{Outcome: out}
	}
	i, known := p.find(o)
	if known && e.Now >= p.records[i].end() {
		p.remove(i) // past its time, and not swept yet
		known, p.Dirty = false, true
	}
	if !known {
		switch {
		case r.SealedAt <= p.Mark || r.Now > r.FreshUntil:
			return Claim{Outcome: NotFresh}
		case e.Room != nil:
			if out := e.Room(r.Key, stream); out != 0 {
				e.Group.advance(r.SealedAt)
				return Claim{Outcome: out}
			}
		}
		p.insert(i, record{offset: o, firstSeen: r.Now})
		return p.grant(e, i, r)
	}
	rec := &p.records[i]
	if rec.tag != r.Tag && !rec.resealed && !r.Resealed {
		return Claim{Outcome: Collision}
	}
	if rec.status == claimed && rec.token != r.Token {
		if until, live := e.live(r.Key, p, rec); live {
			return Claim{Outcome: Busy, Until: until}
		}
	}
	if r.Now > r.FreshUntil && r.Now-rec.firstSeen > r.RetryWindow && !(rec.status == claimed && rec.token == r.Token) {
		return Claim{Outcome: NotFresh}
	}
	return p.grant(e, i, r)
}

// copied judges a copy of what was consumed. A message that was sealed anew has another tag
// and the same identity. Whether two with different tags are the same message cannot be told,
// because a stolen sender key can say "sealed anew" of any, so the copy is not completed: it
// may be one that was never handled.
func (p *Page) copied(o uint16, r *Request) Outcome {
	c := p.recent(o)
	switch {
	case c == nil:
		return Reused
	case c.tag == r.Tag || c.tag == unknownTag:
		return Duplicate
	case c.resealed || r.Resealed:
		return Reused
	}
	return Collision
}

// unknownTag stands for the tag of a message whose completion is known and whose record is gone.
var unknownTag [8]byte

// grant gives the record to the token of the request.
func (p *Page) grant(e *Env, i int, r *Request) Claim {
	rec := &p.records[i]
	repeated := rec.status == claimed && rec.token == r.Token
	rec.status, rec.token, rec.tag = claimed, r.Token, r.Tag
	rec.resealed = rec.resealed || r.Resealed
	rec.sealedAt, rec.lease, rec.changed = r.SealedAt, r.Lease, e.Now
	rec.keep = max(rec.keep, e.Now+r.RetryWindow)
	rec.beat++
	p.Dirty = true
	return Claim{Outcome: Done, FirstSeen: rec.firstSeen, repeated: repeated}
}

func (p *Page) insert(i int, r record) {
	p.records = append(p.records, record{})
	copy(p.records[i+1:], p.records[i:])
	p.records[i] = r
}

func (p *Page) remove(i int) {
	copy(p.records[i:], p.records[i+1:])
	p.records[len(p.records)-1] = record{}
	p.records = p.records[:len(p.records)-1]
	if len(p.records) == 0 {
		p.records = nil
	}
}

// seen reports whether a sequence is accounted for: consumed, claimed, parked,
// excused, or older than what the stream remembers.
func seen(e *Env, s Stream, n uint64) bool {
	if p := s.Page(IndexOf(n, e.Span)); p != nil {
		o := p.offset(n)
		if p.consumed(o) || p.excused.Has(n) {
			return true
		}
		if i, ok := p.find(o); ok && p.records[i].status != released && e.Now < p.records[i].end() {
			return true
		}
	}
	h := s.Head()
	return h != nil && (n < h.Start || h.has(n) || h.Excused.Has(n))
}
