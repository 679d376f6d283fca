package stream

import "container/list"

// maxSessions bounds the sessions whose last message is remembered, in each
// stream: about 1 MiB. A session that was evicted starts again without a previous
// message, which receivers take for "none known".
const maxSessions = 4096

// sessions keeps the last confirmed sequence of the sessions used last.
type sessions struct {
	last map[string]*list.Element // of lastOf
	used list.List                // the one used last in front
}

type lastOf struct {
	session  string
	sequence uint64
}

// get returns the last confirmed sequence of a session, 0 if none is known.
func (s *sessions) get(session string) uint64 {
	e := s.last[session]
	if e == nil {
		return 0
	}
	s.used.MoveToFront(e)
	return e.Value.(*lastOf).sequence //nolint:forcetypeassert // nothing else is in the list
}

// confirm notes a confirmed sequence of a session.
func (s *sessions) confirm(session string, sequence uint64) {
	if e := s.last[session]; e != nil {
		s.used.MoveToFront(e)
		l := e.Value.(*lastOf) //nolint:forcetypeassert // nothing else is in the list
		l.sequence = max(l.sequence, sequence)
		return
	}
	if s.last == nil {
		s.last = make(map[string]*list.Element)
	}
	if len(s.last) == maxSessions {
		oldest := s.used.Back()
		delete(s.last, s.used.Remove(oldest).(*lastOf).session) //nolint:forcetypeassert // nothing else is in the list
	}
	s.last[session] = s.used.PushFront(&lastOf{session, sequence})
}
