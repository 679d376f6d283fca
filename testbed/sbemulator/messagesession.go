package sbemulator

import (
	"slices"
	"time"

	"github.com/queue-runtime/queue/testbed/sbemulator/internal/wire"
)

// messageSession is a session of Service Bus: the messages of one session ID,
// which one receiver holds at a time. (A session of AMQP is another thing: see
// session.) It exists as long as it has messages, state or a holder.
type messageSession struct {
	q       *queue
	id      string
	records int // of any state
	ready   readyHeap
	locks   map[wire.UUID]*lock

	state        []byte // nil means none
	stateUpdated time.Time

	held   bool
	holder *link // nil while held: its connection was lost, and the options keep the session
	until  time.Time
	timer  *timer
}

// session returns the session of that ID, made if needed.
func (q *queue) session(id string) *messageSession {
	ms := q.sessions[id]
	if ms == nil {
		ms = &messageSession{q: q, id: id, locks: map[wire.UUID]*lock{}}
		q.sessions[id] = ms
	}
	return ms
}

// forget drops a session that is empty in every respect.
func (ms *messageSession) forget() {
	if ms.records == 0 && ms.state == nil && !ms.held && ms.q.sessions[ms.id] == ms {
		delete(ms.q.sessions, ms.id)
	}
}

// grant gives the free session to l.
func (ms *messageSession) grant(l *link) {
	ms.held, ms.holder = true, l
	l.out.session = ms
	ms.startLock()
}

func (ms *messageSession) startLock() {
	s := ms.q.s
	s.clock.stop(ms.timer)
	ms.until = s.clock.now().Add(ms.q.opts.LockDuration)
	ms.timer = s.clock.at(ms.until, ms.expire)
}

// expire takes the session from its holder, whose deliveries did not succeed.
func (ms *messageSession) expire() {
	l := ms.holder
	ms.release(deliveryFailed)
	if l != nil {
		l.detach(&wire.Error{Condition: condSessionLockLost, Description: "The session lock has expired on the session. Accept a new session."})
	}
}

// release ends the hold. Whether what was locked counts as failed depends on
// how the hold ended: a lock that ran out counts, a receiver that closed does
// not.
func (ms *messageSession) release(failed bool) {
	if !ms.held {
		return
	}
	q := ms.q
	q.s.clock.stop(ms.timer)
	if ms.holder != nil {
		ms.holder.out.session = nil
	}
	ms.held, ms.holder, ms.timer = false, nil, nil
	var back []*record
	for _, l := range ms.locks {
		back = append(back, l.record)
		q.unlock(l)
	}
	slices.SortFunc(back, func(a, b *record) int { return bySequence(a, b.seq) })
	for _, r := range back {
		q.comeBack(r, failed)
	}
	q.grantWaiting()
	ms.forget()
}

// pump delivers what is ready to the holder as long as it wants it.
func (ms *messageSession) pump() {
	for ms.holder != nil && ms.holder.wants() {
		r := ms.ready.peek()
		if r == nil {
			return
		}
		ms.ready.pop()
		ms.holder.deliver(r)
	}
}

// waiter is an attach that waits for the next free session.
type waiter struct {
	link  *link
	timer *timer // by the system's clock: it is a timeout of the protocol
}

// next returns the free session whose first deliverable message is the oldest.
func (q *queue) next() *messageSession {
	var best *messageSession
	var first int64
	for _, ms := range q.sessions {
		if ms.held {
			continue
		}
		if r := ms.ready.peek(); r != nil && (best == nil || r.seq < first) {
			best, first = ms, r.seq
		}
	}
	return best
}

// grantWaiting gives free sessions to the links that wait for one.
func (q *queue) grantWaiting() {
	for len(q.waiting) > 0 {
		ms := q.next()
		if ms == nil {
			return
		}
		w := q.waiting[0]
		q.waiting = slices.Delete(q.waiting, 0, 1)
		q.s.system.stop(w.timer)
		w.link.waiter = nil
		ms.grant(w.link)
		w.link.attached()
	}
}

// stopWaiting removes w from the queue's waiting links.
func (q *queue) stopWaiting(w *waiter) {
	q.s.system.stop(w.timer)
	q.waiting = slices.DeleteFunc(q.waiting, func(x *waiter) bool { return x == w })
	w.link.waiter = nil
}

// sessionIDs returns the IDs of the sessions that are wanted, in order. active
// says that a session has active messages.
func (q *queue) sessionIDs(want func(ms *messageSession, active bool) bool) []string {
	active := map[*messageSession]bool{}
	for _, r := range q.order {
		if r.q == q && r.state == Active && r.session != nil {
			active[r.session] = true
		}
	}
	var ids []string
	for id, ms := range q.sessions {
		if want(ms, active[ms]) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}
