package replay

import (
	"slices"

	"github.com/queue-runtime/queue/internal/replaystate"
)

// A call folds at most pageSteps pages and drops at most streamSteps streams of
// each of two senders, which bounds how long it holds the mutex. A call adds at
// most one page and one stream for an item, and pages and streams leave by the
// same number or more, so sweeping catches up.
const (
	pageSteps   = 16
	streamSteps = 4
)

// sweep folds pages that are due, and more if too many recent messages are kept,
// and drops old streams of the group.
func (m *memory) sweep(g *memoryGroup, now int64) {
	for range pageSteps {
		if at, ok := m.frozen.next(); ok && at <= now {
			m.settle(m.frozen.pop().what, now, false)
			continue
		}
		crowded := m.counts.Recents > m.limits.Recents
		if at, ok := m.open.next(); !ok || at > now && !crowded {
			break
		}
		m.settle(m.open.pop().what, now, crowded) // no other page has tags
	}
	if len(g.rotation) == 0 {
		return
	}
	g.next = (g.next + 1) % len(g.rotation)
	m.dropOld(g, g.rotation[g.next], now)
}

// settle expires records of a page, folds it if its time has come or if force is
// set, and freezes or removes it.
func (m *memory) settle(w *pageWatch, now int64, force bool) {
	s := w.stream
	i, ok := s.find(w.index)
	if !ok {
		return
	}
	mp := &s.pages[i]
	p := mp.read()
	before := replaystate.Counts{Records: int64(p.Records()), Recents: int64(p.Recents())}
	p.Expire(now)
	if !p.Foldable(now) && !force {
		m.countStream(s, replaystate.Counts{Records: int64(p.Records())}.Sub(replaystate.Counts{Records: before.Records}))
		m.open.push(p.Due(), w)
		return
	}
	h := s.decode()
	if force && h.Strip(p, now) {
		m.countStream(s, replaystate.Counts{Records: int64(p.Records()), Recents: int64(p.Recents())}.Sub(before))
		m.open.push(p.Due(), w)
		return
	}
	h.Fold(p)
	g := s.sender.group
	h.Tidy(g.state.Time(now), m.limits.Keep(&g.state, m.tight(s.sender)))
	m.store(s, h)
	empty := p.Folded()
	m.countStream(s, replaystate.Counts{Records: int64(p.Records())}.Sub(before))
	m.bytes -= int64(len(mp.frozen)) // nothing, if it was open
	if empty {
		s.pages = slices.Delete(s.pages, i, i+1)
		if len(s.pages) == 0 {
			s.pages = nil
		}
		return
	}
	mp.open, mp.frozen = nil, replaystate.AppendPage(nil, p)
	m.bytes += int64(len(mp.frozen))
	m.frozen.push(max(p.Due(), now+1), w)
}

func (m *memory) countStream(s *memoryStream, d replaystate.Counts) {
	m.counts.Add(d)
	s.sender.group.counts.Add(d)
	s.sender.counts.Add(d)
}

// store encodes the head of a stream and counts its intervals.
func (m *memory) store(s *memoryStream, h *replaystate.Head) {
	before := 0
	if old := s.decode(); old != nil {
		before = len(old.Intervals)
	}
	m.bytes -= int64(len(s.head))
	s.head = replaystate.AppendHead(make([]byte, 0, 64), h)
	m.bytes += int64(len(s.head))
	h.Dirty = false
	m.countStream(s, replaystate.Counts{Intervals: int64(len(h.Intervals) - before)})
}

// tight reports whether what is old should make room: then it is kept no longer
// than any receiver of the group can need it.
func (m *memory) tight(s *memorySender) bool {
	return m.limits.Sender.Tight(s.counts) || m.limits.Group.Tight(s.group.counts) || m.limits.Store.Tight(m.counts)
}

// dropOld drops streams of a sender that are past their time, and raises the
// group's mark for each.
func (m *memory) dropOld(g *memoryGroup, sender *memorySender, now int64) {
	tight := m.tight(sender)
	keep, slack := m.limits.Keep(&g.state, tight), int64(0)
	if tight {
		slack = m.limits.Keep(&g.state, false) - keep // the heap counts on the longer time
	}
	time := g.state.Time(now)
	for range streamSteps {
		if at, ok := sender.old.next(); !ok || at-slack >= time {
			return
		}
		s := sender.old.pop().what
		newest := s.decode().Newest
		if len(s.pages) > 0 || newest+keep >= time {
			// Look again when it can be too old, not before time has passed.
			sender.old.push(max(newest+keep, time+openFor)+slack, s)
			continue
		}
		m.drop(g, s, newest)
	}
}

func (m *memory) drop(g *memoryGroup, s *memoryStream, newest int64) {
	g.state.Mark = max(g.state.Mark, newest, s.decode().Mark)
	m.countStream(s, replaystate.Counts{Streams: -1, Intervals: -int64(len(s.decode().Intervals))})
	m.bytes -= int64(len(s.head))
	delete(s.sender.streams, s.id)
	if len(s.sender.streams) == 0 {
		delete(g.senders, s.sender.name)
		last := g.rotation[len(g.rotation)-1]
		last.place = s.sender.place
		g.rotation[s.sender.place] = last
		g.rotation = g.rotation[:len(g.rotation)-1]
	}
}
