package sqlitereplay

import (
	"github.com/queue-runtime/queue/internal/replaystate"
)

// save writes what the call has changed. The cache is then what the file holds.
func (l *call) save() {
	if l.err != nil || !l.write {
		return
	}
	for _, s := range l.used {
		l.saveStream(s)
	}
	if l.group.state.Dirty {
		l.exec(updateGroup, l.group.id, replaystate.AppendGroup(nil, &l.group.state))
		l.group.state.Dirty = false
	}
	l.saveCounts()
}

// storeCounter is the ID of the counters of the store.
const storeCounter int64 = 1

// saveCounts adds to the counters: to those of the store even if nothing was added,
// because the change number grows.
func (l *call) saveCounts() {
	for _, s := range l.used {
		w := s.sender
		l.saveCount(w.id, w.added)
		w.counts, w.added = w.total(), replaystate.Counts{}
	}
	l.saveCount(l.group.id, l.added)
	// Three statements cost less than one with a list of IDs.
	l.exec(count, storeCounter, l.added.Records, l.added.Recents, l.added.Streams, l.added.Intervals)
	l.cache.store, l.group.counts = l.stored(), l.grouped()
	l.cache.stamp.Change++
	l.saveHandle()
}

func (l *call) saveCount(id int64, n replaystate.Counts) {
	if n != (replaystate.Counts{}) {
		l.exec(count, id, n.Records, n.Recents, n.Streams, n.Intervals)
	}
}

func (l *call) saveStream(s *streamRow) {
	if l.err != nil {
		return
	}
	l.at = s
	if s.held {
		l.count()
		if s.head != nil && (s.head.Dirty || s.id == 0) {
			l.saveHead(s)
		}
	}
	for _, p := range s.usedPages {
		l.savePage(s, p)
		p.used = false
	}
	s.used, s.usedPages = false, s.usedPages[:0]
}

func (l *call) savePage(s *streamRow, p *pageRow) {
	switch {
	case p.page == nil && p.id != 0:
		l.exec(deletePage, p.id)
		p.id = 0
	case p.page == nil || !p.page.Dirty && !p.page.New:
	default:
		due := p.page.Turn(l.env.Now)
		body := replaystate.AppendPage(l.e.encoded[:0], p.page)
		switch {
		case p.id == 0:
			p.id = l.insert(insertPage, s.id, int64(p.index), l.group.id, due, body) //nolint:gosec // G115: below 2^53
		case p.due == due:
			l.exec(updateBody, p.id, body)
		default:
			l.exec(updatePage, p.id, body, due)
		}
		l.e.encoded = body
		p.due, p.page.Dirty, p.page.New = due, false, false
	}
}

func (l *call) saveHead(s *streamRow) {
	if n := len(s.head.Intervals) - s.intervals; n != 0 {
		l.countStream(s, replaystate.Counts{Intervals: int64(n)})
		s.intervals = len(s.head.Intervals)
	}
	body := replaystate.AppendHead(nil, s.head)
	s.head.Dirty = false
	if s.id != 0 {
		l.exec(updateHead, s.id, s.head.Newest, body)
		return
	}
	if s.sender.id == 0 {
		s.sender.id = l.insert(insertCounter)
		l.exec(insertSender, s.sender.id, l.group.id, s.key.Sender)
	}
	s.id = l.insert(insertStream, s.sender.id, s.key.Stream[:], s.head.Newest, body)
}
