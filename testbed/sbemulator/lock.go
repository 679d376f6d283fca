package sbemulator

import (
	"crypto/rand"
	"time"

	"github.com/queue-runtime/queue/testbed/sbemulator/internal/wire"
)

// lock is the exclusive hold of one delivery on a record. A lock of a session
// lasts as long as the session's.
type lock struct {
	token   wire.UUID
	record  *record // nil when the lock is over
	until   time.Time
	timer   *timer // nil in a session
	session *messageSession
}

// newToken returns a random UUID of version 4 (RFC 9562, Section 5.4).
func newToken() wire.UUID {
	var u wire.UUID
	_, _ = rand.Read(u[:]) // never fails (crypto/rand)
	u[6] = u[6]&0x0f | 0x40
	u[8] = u[8]&0x3f | 0x80
	return u
}

// tag returns the token as delivery tag: in the order of a .NET GUID, whose
// first three fields are little-endian.
func (l *lock) tag() []byte {
	t := l.token
	t[0], t[1], t[2], t[3] = t[3], t[2], t[1], t[0]
	t[4], t[5] = t[5], t[4]
	t[6], t[7] = t[7], t[6]
	return t[:]
}

// acquire locks r, which is free, for the queue's lock duration or with its
// session.
func (q *queue) acquire(r *record) *lock {
	l := &lock{token: newToken(), record: r, session: r.session}
	if l.session != nil {
		l.session.locks[l.token] = l
	} else {
		l.until = q.s.clock.now().Add(q.opts.LockDuration)
		q.timeLock(l)
	}
	r.lock = l
	q.locks[l.token] = l
	return l
}

func (q *queue) timeLock(l *lock) {
	l.timer = q.s.clock.at(l.until, func() { q.lockExpired(l) })
}

// lockedUntil is when the lock ends by itself.
func (l *lock) lockedUntil() time.Time {
	if l.session != nil {
		return l.session.until
	}
	return l.until
}

// unlock ends l. The record is not made available.
func (q *queue) unlock(l *lock) {
	if l == nil || l.record == nil {
		return
	}
	q.s.clock.stop(l.timer)
	delete(q.locks, l.token)
	if l.session != nil {
		delete(l.session.locks, l.token)
	}
	l.record.lock = nil
	l.record = nil
}

// lockExpired ends l as a delivery that did not succeed.
func (q *queue) lockExpired(l *lock) {
	r := l.record
	if r == nil {
		return
	}
	q.unlock(l)
	q.comeBack(r, deliveryFailed)
}

// renew starts the lock's duration anew and returns the new end; ok is false
// when the lock is over.
func (q *queue) renew(l *lock) (until time.Time, ok bool) {
	if l == nil || l.record == nil {
		return time.Time{}, false
	}
	q.s.clock.stop(l.timer)
	l.until = q.s.clock.now().Add(q.opts.LockDuration)
	q.timeLock(l)
	return l.until, true
}

// outcome is what a receiver decided about a delivery.
type outcome struct {
	kind        outcomeKind
	reason      string
	description string
	changes     wire.Map
}

type outcomeKind uint8

const (
	completed outcomeKind = iota + 1
	abandoned
	released // like abandoned, and not counted
	deferred
	deadLettered
)

// settle ends l by the outcome. It is false when the lock is over.
func (q *queue) settle(l *lock, o outcome) bool {
	if l == nil || l.record == nil {
		return false
	}
	r := l.record
	q.unlock(l)
	switch o.kind {
	case completed:
		q.remove(r)
	case abandoned:
		r.modify(o.changes)
		q.comeBack(r, deliveryFailed)
	case released:
		q.comeBack(r, givenBack)
	case deferred:
		r.modify(o.changes)
		r.state = Deferred
	case deadLettered:
		q.deadLetter(r, o.reason, o.description, o.changes)
	}
	return true
}
