package memqueue

import (
	"slices"
	"time"
)

// session is what the store knows of a session. It exists while it has
// messages, a holder, a state, or a caller that waits for it.
type session struct {
	id       string
	messages int               // in any state
	ready    ranking[*message] // deliverable, as far as they alone are concerned
	delayed  ranking[*message] // abandoned; they hold up those behind them
	locked   int               // delivered and not settled

	holder *source // that has accepted it; nil means it is free
	alarm  alarm   // the end of the holder's lock
	state  []byte

	turn *turn[*session] // its place in store.turns; nil means not free, or nothing to deliver
	rank int             // its place in store.heads, which it has along with turn
	head uint64          // seq of its first message, as heads knows it

	receiving waiters // the holder's calls
	accepting waiters // AcceptSession with its name
}

func (ss *session) before(o *session) bool { return ss.head < o.head }
func (ss *session) place() *int            { return &ss.rank }

// free reports whether no source holds the session or one of its messages.
func (ss *session) free() bool { return ss.holder == nil && ss.locked == 0 }

// next returns the next message of the session, and nil if none can be delivered yet.
func (ss *session) next() *message {
	if len(ss.ready) == 0 || len(ss.delayed) > 0 && ss.delayed.first().before(ss.ready.first()) {
		return nil
	}
	return ss.ready.first()
}

// session returns the session of that name, and makes one if there is none. The
// caller calls refresh when the session may be of no more use.
func (s *store) session(id string) *session {
	ss := s.sessions[id]
	if ss == nil {
		ss = &session{id: id}
		ss.alarm.session = ss
		s.sessions[id] = ss
	}
	return ss
}

// refresh brings everything that depends on the session's state up to it. It
// follows every change.
func (s *store) refresh(ss *session) {
	m := ss.next()
	if m != nil && ss.free() {
		ss.head = m.seq
		if ss.turn == nil {
			ss.turn = s.turns.push(ss)
			s.heads.push(ss)
		} else {
			s.heads.fix(ss)
		}
	} else if ss.turn != nil {
		s.turns.remove(ss.turn)
		ss.turn = nil
		s.heads.remove(ss)
	}
	if m != nil && ss.holder != nil {
		ss.receiving.wake()
	}
	if ss.free() {
		ss.accepting.wake()
	}
	idle := ss.messages == 0 && ss.holder == nil && ss.state == nil && ss.receiving.empty() && ss.accepting.empty()
	if idle && s.sessions[ss.id] == ss { // a lost holder may still know an older one
		delete(s.sessions, ss.id)
	}
}

// accept gives a free session to src until the lock is over.
func (s *store) accept(ss *session, src *source, now time.Time) {
	ss.holder, src.session = src, ss
	s.extend(src, now)
	s.refresh(ss)
}

// extend gives src's hold on its session a full lock time from now on.
func (s *store) extend(src *source, now time.Time) {
	src.until = now.Add(src.lock)
	s.setAlarm(&src.session.alarm, src.until)
}

// lose ends the hold on a session whose lock is over.
func (s *store) lose(ss *session, now time.Time) {
	ss.holder.lost = true
	s.vacate(ss.holder, now)
}

// vacate gives up everything that src holds: its messages, in their order, and
// its session.
func (s *store) vacate(src *source, now time.Time) {
	all := slices.Clone(src.locked)
	slices.SortFunc(all, func(a, b *message) int {
		if a.before(b) {
			return -1
		}
		return 1
	})
	for _, m := range all {
		s.release(m, now, 0)
	}
	if ss := src.session; ss != nil && ss.holder == src {
		ss.holder = nil
		s.stopAlarm(&ss.alarm)
		ss.receiving.wakeAll()
		s.refresh(ss)
	}
}

// takeSession delivers up to max messages of src's session to src, in order.
func (s *store) takeSession(src *source, max int, now time.Time) []*delivery {
	var out []*delivery
	for len(out) < max {
		m := src.session.next()
		if m == nil {
			break
		}
		out = append(out, s.hold(m, src, now))
	}
	return out
}
