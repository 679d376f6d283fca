package replaystate

// End finishes a claim as consumed, released or parked.
func End(e *Env, s Stream, f *Finish) Outcome {
	p := s.Page(IndexOf(f.Sequence, e.Span))
	if p == nil {
		if h := s.Head(); h != nil && h.has(f.Sequence) {
			return Handled
		}
		return Lost
	}
	o := p.offset(f.Sequence)
	if p.consumed(o) {
		if c := p.recent(o); c != nil && f.Kind == Consume && c.token == [8]byte(f.Token[:8]) {
			return Done
		}
		return Handled
	}
	i, ok := p.find(o)
	if !ok || p.records[i].token != f.Token {
		return Lost
	}
	rec := &p.records[i]
	switch {
	case rec.status == claimed:
		p.end(e, i, f.Kind)
		return Done
	case rec.status == released && f.Kind == Release, rec.status == parked && f.Kind == Park:
		return Done
	}
	return Lost
}

// end moves a claimed record on. A claim whose lease is over and that nothing
// has taken over still ends as its owner says: the handler did finish.
func (p *Page) end(e *Env, i int, kind Kind) {
	p.Dirty = true
	rec := &p.records[i]
	switch kind {
	case Consume:
		p.bits[rec.offset/64] |= 1 << (rec.offset % 64)
		p.Newest = max(p.Newest, rec.sealedAt)
		p.stay(e, rec.lease)
		p.recents = append(p.recents, recent{rec.offset, rec.resealed, rec.tag, [8]byte(rec.token[:8])})
		e.Group.advance(rec.sealedAt)
		p.remove(i)
	case Release:
		rec.status, rec.changed = released, e.Now
		p.rest(e) // it may be void meanwhile
	case Park:
		rec.status, rec.changed = parked, e.Now
		rec.keep = max(rec.keep, e.Now+e.ParkedTTL)
		// Final for the accounting, also when the record is gone.
		n := p.first() + uint64(rec.offset)
		p.excuse(Range{n, n})
		p.rest(e)
	}
}

// Extend renews a claim.
func Extend(e *Env, s Stream, l *Lease) Outcome {
	p := s.Page(IndexOf(l.Sequence, e.Span))
	if p == nil {
		if h := s.Head(); h != nil && h.has(l.Sequence) {
			return Handled
		}
		return Lost
	}
	o := p.offset(l.Sequence)
	if p.consumed(o) {
		return Handled
	}
	i, ok := p.find(o)
	if !ok || p.records[i].status != claimed || p.records[i].token != l.Token {
		return Lost
	}
	rec := &p.records[i]
	if e.Live == nil && e.Now >= rec.changed+rec.lease {
		// Another receiver may have been told that it is over. A store that
		// observes tells that by the beat instead.
		return Lost
	}
	rec.lease, rec.changed = l.Lease, e.Now
	rec.beat++
	p.Dirty = true
	return Done
}

// Lapse ends the lease of a claim that was seen unchanged for the whole of it, so that
// other receivers need not see that for themselves, and says since when. Its owner may still
// renew or finish it.
func Lapse(e *Env, s Stream, k Key, sequence uint64) {
	p := s.Page(IndexOf(sequence, e.Span))
	if p == nil {
		return
	}
	i, ok := p.find(p.offset(sequence))
	if !ok || p.records[i].status != claimed || p.records[i].lease == 0 {
		return
	}
	if _, live := e.live(k, p, &p.records[i]); !live {
		p.records[i].lease, p.records[i].changed, p.Dirty = 0, e.Now, true
	}
}

// Examine says what is known of an identity. It changes nothing.
func Examine(e *Env, s Stream, q *Query) Look {
	h, p := s.Head(), s.Page(IndexOf(q.Sequence, e.Span))
	mark := int64(0)
	if p != nil {
		o := p.offset(q.Sequence)
		if p.consumed(o) {
			return Look{State: Consumed}
		}
		if i, ok := p.find(o); ok && e.Now < p.records[i].end() {
			return p.examine(e, q.Key, &p.records[i])
		}
		mark = p.Mark
	}
	switch {
	case h == nil:
		return Look{State: Unknown}
	case h.has(q.Sequence):
		return Look{State: Consumed}
	case q.SealedAt > max(mark, h.Mark) && q.SealedAt > e.Birth+e.Group.Skew:
		// All that was consumed and sealed later than both is remembered, in
		// an interval or a page, and this is in neither.
		return Look{State: Unused}
	}
	return Look{State: Unknown}
}

func (p *Page) examine(e *Env, k Key, r *record) Look {
	l := Look{FirstSeen: r.firstSeen}
	switch r.status {
	case released:
		l.State = Released
	case parked:
		l.State = Parked
	default:
		l.State = Claimed
		l.Until, _ = e.live(k, p, r)
	}
	return l
}

// rest has the page folded soon if none of its records is open any more, so that the head need not
// hold it apart for as long as it keeps what is parked.
func (p *Page) rest(e *Env) {
	if p.known() {
		p.stay(e, 0)
	}
}

// stay keeps the recent entries of the page for a while.
func (p *Page) stay(e *Env, lease int64) {
	if quiet := e.Now + max(minRecent, 2*lease); quiet > p.quiet {
		p.quiet, p.Dirty = quiet, true
	}
}
