package sqlitereplay

import (
	"github.com/queue-runtime/queue/internal/replaystate"
)

// save writes what the call has changed.
func (l *call) save() {
	if l.err != nil || !l.write {
		return
	}
	for _, s := range l.streams {
		l.saveStream(s)
	}
	if l.group.state.Dirty {
		l.exec(updateGroup, l.group.id, replaystate.AppendGroup(nil, &l.group.state))
	}
	l.saveCount(l.group.id, l.group.added)
	for _, s := range l.senders {
		l.saveCount(s.id, s.added)
	}
	// Also if nothing was added: the change number grows.
	l.exec(count, storeCounter, l.added.Records, l.added.Recents, l.added.Streams, l.added.Intervals)
	l.stamp.Change++
}

// storeCounter is the ID of the counters of the store.
const storeCounter int64 = 1

func (l *call) saveCount(id int64, n replaystate.Counts) {
	if id != 0 && n != (replaystate.Counts{}) {
		l.exec(count, id, n.Records, n.Recents, n.Streams, n.Intervals)
	}
}

func (l *call) saveStream(s *streamRow) {
	if !s.held || l.err != nil {
		return
	}
	l.at = s
	l.count()
	if s.head != nil && (s.head.Dirty || s.id == 0) {
		l.saveHead(s)
	}
	for index, p := range s.pages {
		switch {
		case l.err != nil:
			return
		case p.deleted:
			l.exec(deletePage, s.id, int64(index)) //nolint:gosec // G115: below 2^53
		case p.page != nil && (p.page.Dirty || p.page.New):
			l.exec(upsertPage, s.id, int64(index), l.group.id, l.due(p.page), replaystate.AppendPage(nil, p.page)) //nolint:gosec // G115
		}
	}
}

func (l *call) saveHead(s *streamRow) {
	if n := len(s.head.Intervals) - s.intervals; n != 0 {
		l.countStream(s, replaystate.Counts{Intervals: int64(n)})
		s.intervals = len(s.head.Intervals)
	}
	body := replaystate.AppendHead(nil, s.head)
	if s.id != 0 {
		l.exec(updateHead, s.id, s.head.Newest, body)
		return
	}
	if s.sender.id == 0 {
		s.sender.id = l.counter()
		l.exec(insertSender, s.sender.id, l.group.id, s.key.Sender)
	}
	l.exec(insertStream, s.sender.id, s.key.Stream[:], s.head.Newest, body)
	s.id = l.lastRow()
}

// due is when a page has to be looked at: in whole minutes, so that a page that is
// in use does not change its place in the index with each call.
func (l *call) due(p *replaystate.Page) int64 {
	const minute = 60_000
	due := max(p.Due(), l.env.Now+5*minute)
	return (due + minute - 1) / minute * minute
}
