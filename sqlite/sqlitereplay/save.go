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
		_, err := l.c.Exec(updateGroup, l.group.id, replaystate.AppendGroup(nil, &l.group.state))
		l.fail(err)
	}
	if n := l.group.added; n != (replaystate.Counts{}) {
		_, err := l.c.Exec(countGroup, l.group.id, n.Records, n.Recents, n.Streams, n.Intervals)
		l.fail(err)
	}
	for _, s := range l.senders {
		if n := s.added; n != (replaystate.Counts{}) && s.id != 0 {
			_, err := l.c.Exec(countSender, s.id, n.Records, n.Recents, n.Streams, n.Intervals)
			l.fail(err)
		}
	}
	n := l.added
	_, err := l.c.Exec(updateStore, n.Records, n.Recents, n.Streams, n.Intervals)
	l.fail(err)
	l.stamp.Change++
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
			_, err := l.c.Exec(deletePage, s.id, int64(index)) //nolint:gosec // G115: below 2^53
			l.fail(err)
		case p.page != nil && (p.page.Dirty || p.page.New):
			_, err := l.c.Exec(upsertPage, s.id, int64(index), l.group.id, l.due(p.page), replaystate.AppendPage(nil, p.page)) //nolint:gosec // G115
			l.fail(err)
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
		_, err := l.c.Exec(updateHead, s.id, s.head.Newest, body)
		l.fail(err)
		return
	}
	if s.sender.id == 0 {
		_, err := l.c.Exec(insertSender, l.group.id, s.key.Sender)
		if l.fail(err) {
			return
		}
		s.sender.id, err = l.c.Int(lastRow)
		l.fail(err)
	}
	_, err := l.c.Exec(insertStream, s.sender.id, s.key.Stream[:], s.head.Newest, body)
	if l.fail(err) {
		return
	}
	s.id, err = l.c.Int(lastRow)
	l.fail(err)
}

// due is when a page has to be looked at: in whole minutes, so that a page that is
// in use does not change its place in the index with each call.
func (l *call) due(p *replaystate.Page) int64 {
	const minute = 60_000
	due := max(p.Due(), l.env.Now+5*minute)
	return (due + minute - 1) / minute * minute
}
