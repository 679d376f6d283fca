package memqueue

import (
	"strconv"
	"sync"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// store is one queue with its dead-letter queue. mu guards all of it, and all
// messages, sessions and sources that belong to it; it is never held across a wait.
// Methods take it by lock, which first performs what is due, and give it back by
// unlock, which wakes waiting calls.
type store struct {
	name string
	cfg  QueueOptions // resolved

	mu     sync.Mutex
	closed bool
	active subqueue
	dead   subqueue
	bytes  int
	seq    uint64
	tokens uint64

	sessions map[string]*session
	turns    line[*session]    // free sessions with a deliverable message, in the order in which they became so
	heads    ranking[*session] // the same by their first message

	accepting waiters // AcceptSession without a name
	waiting   int     // calls that wait, all in all

	alarms ranking[*alarm]
	timer  *time.Timer // set for timeAt while calls wait
	timeAt time.Time
	ticks  sync.WaitGroup // the timer, while set or running

	seen    map[string]sighting // by DedupID
	seenAll line[string]        // the same, the oldest first
}

// subqueue is the queue proper or its dead-letter queue.
type subqueue struct {
	sequence  sequence
	ready     deliverable     // messages without a session
	counts    [locked + 1]int // by state
	receiving waiters
}

// sighting is a DedupID that was sent.
type sighting struct {
	brokerID string
	until    time.Time
}

func newStore(name string, cfg QueueOptions) *store {
	return &store{name: name, cfg: cfg, sessions: make(map[string]*session), seen: make(map[string]sighting)}
}

// lock takes mu and brings the store up to the time, which it returns.
func (s *store) lock() time.Time {
	s.mu.Lock()
	now := time.Now()
	for len(s.alarms) > 0 && !s.alarms.first().at.After(now) {
		a := s.alarms.pop()
		switch m := a.message; {
		case a.session != nil:
			s.lose(a.session, a.at)
		case a == &m.expiry:
			if m.state != locked {
				s.expire(m, a.at)
			}
		case m.state == locked:
			s.release(m, a.at, 0)
		default:
			s.offer(m)
		}
	}
	return now
}

// unlock wakes the calls that can go on, sets the timer for the others, and gives mu
// back.
func (s *store) unlock() {
	if s.active.ready.len() > 0 || len(s.heads) > 0 {
		s.active.receiving.wake()
	}
	if s.active.ready.len() > 0 || len(s.heads) > 0 {
		s.accepting.wake()
	}
	if s.dead.ready.len() > 0 {
		s.dead.receiving.wake()
	}
	s.setTimer()
	s.mu.Unlock()
}

// setTimer sets the timer for the next alarm if a call waits for one.
func (s *store) setTimer() {
	var at time.Time
	if s.waiting > 0 && len(s.alarms) > 0 && !s.closed {
		at = s.alarms.first().at
	}
	if at.Equal(s.timeAt) {
		return
	}
	if s.timer != nil && s.timer.Stop() {
		s.ticks.Done()
	}
	s.timer, s.timeAt = nil, at
	if at.IsZero() {
		return
	}
	s.ticks.Add(1)
	var t *time.Timer
	t = time.AfterFunc(time.Until(at), func() {
		defer s.ticks.Done()
		s.lock()
		if s.timer == t { // otherwise another was set meanwhile
			s.timer, s.timeAt = nil, time.Time{}
		}
		s.unlock()
	})
	s.timer = t
}

func (s *store) setAlarm(a *alarm, at time.Time) {
	a.at = at
	if a.rank == 0 {
		s.alarms.push(a)
	} else {
		s.alarms.fix(a)
	}
}

func (s *store) stopAlarm(a *alarm) {
	if a.rank != 0 {
		s.alarms.remove(a)
	}
}

// put stores a message that was accepted and is the store's own from now on.
func (s *store) put(m *message, now time.Time) {
	s.seq++
	m.seq = s.seq
	if m.brokerID == "" {
		m.brokerID = strconv.FormatUint(m.seq, 10)
	}
	m.enqueued = now
	from := now
	if m.NotBefore.After(now) {
		from = m.NotBefore
	}
	for _, d := range [...]time.Duration{m.TTL, s.cfg.TTL, s.cfg.Retention} {
		if end := from.Add(d); d > 0 && (m.end.IsZero() || end.Before(m.end)) {
			m.end = end
		}
	}
	if !m.end.IsZero() {
		m.expiry.message = m
		s.setAlarm(&m.expiry, m.end)
	}
	if m.SessionID != "" {
		m.session = s.session(m.SessionID)
		m.session.messages++
	}
	s.insert(m, &s.active, now)
	if m.NotBefore.After(now) {
		s.change(m, scheduled)
		s.setAlarm(&m.alarm, m.NotBefore)
		return
	}
	s.offer(m)
}

// insert makes m part of a subqueue.
func (s *store) insert(m *message, l *subqueue, now time.Time) {
	m.alarm.message = m
	m.subqueue, m.since = l, now
	s.bytes += m.size
	l.sequence.add(m)
	m.state = waiting
	l.counts[waiting]++
}

// discard takes m out of its subqueue and of everything that knows it.
func (s *store) discard(m *message) {
	s.settle(m)
	s.stopAlarm(&m.expiry)
	m.subqueue.sequence.remove(m)
	m.subqueue.counts[m.state]--
	s.bytes -= m.size
	if ss := m.session; ss != nil {
		ss.messages--
		m.session = nil
		s.refresh(ss)
	}
}

// remove discards m for good.
func (s *store) remove(m *message) {
	s.discard(m)
	if m.body != nil {
		m.body.release()
		m.body, m.Body = nil, nil
	}
}

// change moves m to another state.
func (s *store) change(m *message, to state) {
	m.subqueue.counts[m.state]--
	m.state = to
	m.subqueue.counts[to]++
}

// settle takes m out of what its state keeps it in. The state itself stays, for
// the caller to change.
func (s *store) settle(m *message) {
	s.stopAlarm(&m.alarm)
	switch m.state {
	case waiting:
		if m.rank == 0 && m.slot == 0 {
			break // new
		}
		if m.session != nil {
			m.session.ready.remove(m)
		} else {
			m.subqueue.ready.remove(m)
		}
	case delayed:
		if m.session != nil {
			m.session.delayed.remove(m)
		}
	case locked:
		m.holder.locked.remove(m)
		m.holder, m.token = nil, 0
		if m.session != nil {
			m.session.locked--
		}
	case scheduled:
	}
}

// offer makes m deliverable.
func (s *store) offer(m *message) {
	s.settle(m)
	s.change(m, waiting)
	if ss := m.session; ss != nil {
		ss.ready.push(m)
		s.refresh(ss)
		return
	}
	m.subqueue.ready.push(m)
}

// hold delivers m, which waits, to src.
func (s *store) hold(m *message, src *source, now time.Time) *delivery {
	s.settle(m)
	s.change(m, locked)
	s.tokens++
	m.token, m.holder = s.tokens, src
	m.count++
	src.locked.add(m)
	d := m.delivery()
	d.receipt = receipt{source: src, message: m, token: m.token}
	d.Receipt = &d.receipt
	if src.session != nil {
		d.LockedUntil = src.until
	} else {
		d.LockedUntil = now.Add(src.lock)
		s.setAlarm(&m.alarm, d.LockedUntil)
	}
	if ss := m.session; ss != nil {
		ss.locked++
		s.refresh(ss)
	}
	return d
}

// release gives m, which is held, back: for delivery after delay, or to the
// dead-letter queue if it has had its deliveries.
func (s *store) release(m *message, now time.Time, delay time.Duration) {
	switch {
	case m.subqueue == &s.active && s.cfg.MaxDeliveries > 0 && m.count >= s.cfg.MaxDeliveries:
		s.deadLetter(m, now, driver.ReasonMaxDeliveries, "the message reached the queue's limit of deliveries")
	case m.expired(now):
		s.expire(m, now)
	case delay > 0:
		s.settle(m)
		s.change(m, delayed)
		s.setAlarm(&m.alarm, now.Add(delay))
		if ss := m.session; ss != nil {
			ss.delayed.push(m)
			s.refresh(ss)
		}
	default:
		s.offer(m)
	}
}

// expire ends the life of m, which is not held.
func (s *store) expire(m *message, now time.Time) {
	if s.cfg.DeadLetterExpired {
		s.deadLetter(m, now, driver.ReasonExpired, "the message was not settled within its time to live")
		return
	}
	s.remove(m)
}

// deadLetter moves m to the dead-letter queue, under its lock all the while: it is in
// one of the two at any time.
func (s *store) deadLetter(m *message, now time.Time, reason, description string) {
	s.discard(m)
	s.seq++
	m.seq = s.seq
	m.count, m.end = 0, time.Time{}
	m.dead = &driver.DeadLetter{Reason: reason, Description: description, Queue: s.name, At: now}
	s.insert(m, &s.dead, now)
	s.offer(m)
}

// take delivers up to max messages of l to src: the first in the order of
// storage among those without a session and the first of each free session.
func (s *store) take(l *subqueue, src *source, max int, now time.Time) []*delivery {
	var out []*delivery
	for len(out) < max {
		m := l.ready.first()
		if l == &s.active && len(s.heads) > 0 {
			if head := s.heads.first().ready.first(); m == nil || head.before(m) {
				m = head
			}
		}
		if m == nil {
			break
		}
		out = append(out, s.hold(m, src, now))
	}
	return out
}

// takeSessionless delivers the first message that can be delivered to src if it has no
// session, so that neither such messages nor sessions keep the others waiting for long.
func (s *store) takeSessionless(src *source, now time.Time) *delivery {
	m := s.active.ready.first()
	if m == nil {
		return nil
	}
	if len(s.heads) > 0 && s.heads.first().ready.first().before(m) {
		return nil
	}
	return s.hold(m, src, now)
}

// stats counts what is in l.
func (s *store) stats(l *subqueue) driver.Stats {
	st := driver.Stats{
		Ready:     int64(l.counts[waiting]),
		InFlight:  int64(l.counts[locked]),
		Scheduled: int64(l.counts[scheduled] + l.counts[delayed]),
	}
	if l == &s.active {
		st.DeadLetters = int64(s.dead.sequence.live)
	}
	m := l.ready.first()
	if l == &s.active && len(s.heads) > 0 {
		if head := s.heads.first().ready.first(); m == nil || head.before(m) {
			m = head
		}
	}
	if m != nil {
		st.Oldest = m.since
	}
	return st
}

// close ends every call that waits, and the timer.
func (s *store) close() {
	s.mu.Lock()
	s.closed = true
	s.wakeAll()
	s.unlock()
	s.ticks.Wait()
}

func (s *store) wakeAll() {
	s.active.receiving.wakeAll()
	s.dead.receiving.wakeAll()
	s.accepting.wakeAll()
	for _, ss := range s.sessions {
		ss.receiving.wakeAll()
		ss.accepting.wakeAll()
	}
}
