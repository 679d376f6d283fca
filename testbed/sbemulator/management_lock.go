package sbemulator

import (
	"math"
	"time"

	"github.com/queue-runtime/queue/testbed/sbemulator/internal/wire"
)

var lockLost = answer{status: 410, condition: condMessageLockLost,
	description: "The lock supplied is invalid. Either the lock expired, or the message has already been removed from the queue."}

// locksOf returns the locks of the tokens; ok is false if one is over.
func (r *request) locksOf(tokens []wire.UUID) (locks []*lock, ok bool) {
	for _, t := range tokens {
		l := r.q.locks[t]
		if l == nil {
			return nil, false
		}
		locks = append(locks, l)
	}
	return locks, true
}

// renewLock renews the locks of messages: all, or none if one is over.
func (r *request) renewLock() answer {
	tokens, isList := r.tokens()
	if !isList {
		return badRequest("lock-tokens is missing.")
	}
	locks, ok := r.locksOf(tokens)
	if !ok {
		return lockLost
	}
	for _, l := range locks {
		if l.session != nil {
			return badRequest("The message is locked with its session: renew that.")
		}
	}
	ends := wire.Array{Code: 0x83}
	for _, l := range locks {
		until, _ := r.q.renew(l)
		ends.Elems = append(ends.Elems, wire.TimestampOf(until))
	}
	return success(wire.Map{{Key: "expirations", Value: ends}})
}

// updateDisposition settles by lock token: also what was received over a link
// that is gone, and what was received by its number.
func (r *request) updateDisposition() answer {
	tokens, isList := r.tokens()
	status, _ := r.body.String("disposition-status")
	o := outcome{changes: r.changes()}
	switch status {
	case "completed":
		o.kind = completed
	case "abandoned":
		o.kind = abandoned
	case "defered": // the protocol's spelling
		o.kind = deferred
	case "suspended":
		o.kind = deadLettered
		o.reason, _ = r.body.String("deadletter-reason")
		o.description, _ = r.body.String("deadletter-description")
	}
	if !isList || o.kind == 0 {
		return badRequest("lock-tokens or disposition-status is missing.")
	}
	if o.kind == deadLettered && r.q.dead == nil {
		return answer{status: 403, condition: condNotAllowed, description: "Dead letters cannot be dead-lettered."}
	}
	locks, ok := r.locksOf(tokens)
	if !ok {
		return lockLost
	}
	for _, l := range locks {
		r.q.settle(l, o)
	}
	return success(wire.Map{})
}

func (r *request) changes() wire.Map {
	v, _ := r.body.Get("properties-to-modify")
	m, _ := v.(wire.Map)
	return m
}

// receiveBySequenceNumber hands out deferred messages: all, or none if one
// cannot be.
func (r *request) receiveBySequenceNumber() answer {
	numbers, isList := r.numbers("sequence-numbers")
	if !isList {
		return badRequest("sequence-numbers is missing.")
	}
	mode, _ := r.integer("receiver-settle-mode")
	now := r.q.s.clock.now()
	var found []*record
	for _, n := range numbers {
		m := r.q.bySeq[n]
		if m != nil && m.state == Deferred && m.lock == nil && m.expired(now) {
			r.q.endLife(m) // its time was over before it was asked for
			m = nil
		}
		if m == nil || m.state != Deferred || m.lock != nil || !r.mayTake(m) {
			return answer{status: 404, condition: condMessageNotFound,
				description: "Failed to lock one or more specified messages. The message does not exist."}
		}
		found = append(found, m)
	}
	var list wire.List
	for _, m := range found {
		if m.q == nil || m.lock != nil {
			continue // its number stands twice
		}
		entry := wire.Map{}
		if mode == int64(wire.ReceiverFirst) { // receive and delete
			entry = append(entry, wire.Pair{Key: "message", Value: m.encode(nil)})
			r.q.remove(m)
		} else {
			l := r.q.acquire(m)
			entry = append(entry, wire.Pair{Key: "lock-token", Value: l.token}, wire.Pair{Key: "message", Value: m.encode(l)})
		}
		list = append(list, entry)
	}
	return success(wire.Map{{Key: "messages", Value: list}})
}

// mayTake reports whether the request comes from the holder of m's session.
func (r *request) mayTake(m *record) bool {
	if m.session == nil {
		return true
	}
	l := r.c.linkNamed(r.linkName)
	return l != nil && l.out != nil && l.out.session == m.session
}

// mySession returns the session that the request names if its link holds the session.
// A request without the name of a link needs only the session's ID, as long as some
// link holds the session.
func (r *request) mySession() *messageSession {
	id, named := r.body.String("session-id")
	if !named {
		return nil
	}
	ms := r.q.sessions[id]
	if ms == nil || !ms.held {
		return nil
	}
	if r.linkName != "" && (ms.holder == nil || ms.holder.name != r.linkName || ms.holder.ss.c != r.c) {
		return nil
	}
	return ms
}

var sessionLost = answer{status: 410, condition: condSessionLockLost, description: "The session lock was lost. Request a new session receiver."}

func (r *request) renewSessionLock() answer {
	ms := r.mySession()
	if ms == nil {
		return sessionLost
	}
	ms.startLock()
	return success(wire.Map{{Key: "expiration", Value: wire.TimestampOf(ms.until)}})
}

func (r *request) getSessionState() answer {
	ms := r.mySession()
	if ms == nil {
		return sessionLost
	}
	var state any
	if ms.state != nil {
		state = ms.state
	}
	return success(wire.Map{{Key: "session-state", Value: state}})
}

// setSessionState stores up to MaxMessageSize bytes with the session.
func (r *request) setSessionState() answer {
	ms := r.mySession()
	if ms == nil {
		return sessionLost
	}
	v, _ := r.body.Get("session-state")
	state, isBinary := v.([]byte)
	if v != nil && !isBinary {
		return badRequest("session-state is no binary.")
	}
	if len(state) > r.q.opts.MaxMessageSize {
		return answer{status: 413, condition: condMessageSize, description: "The state is too large."}
	}
	grows := int64(len(state) - len(ms.state))
	if m := r.q.main(); grows > 0 && m.bytes+grows > m.opts.MaxBytes {
		return answer{status: 403, condition: condResourceLimit, description: "The queue is full: its maximum size has been reached."}
	}
	r.q.main().bytes += grows // states count like messages
	ms.state = nil
	if len(state) > 0 { // clients send an empty binary to clear it
		ms.state = append(ms.state, state...)
	}
	ms.stateUpdated = r.q.s.clock.now()
	return success(wire.Map{})
}

// allSessions is the time with which clients ask for every session: the first
// millisecond beyond what .NET can tell.
var allSessions = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)

// getMessageSessions lists sessions, a page at a time: those with active
// messages or state, or those whose state was set after a time.
func (r *request) getMessageSessions() answer {
	v, _ := r.body.Get("last-updated-time")
	after, isTime := v.(wire.Timestamp)
	skip, ok1 := r.integer("skip")
	top, ok2 := r.integer("top")
	if !isTime || !ok1 || !ok2 || skip < 0 || top < 0 || skip > math.MaxInt32 {
		return badRequest("last-updated-time, skip or top is missing.")
	}
	all := !after.Time().Before(allSessions)
	ids := r.q.sessionIDs(func(ms *messageSession, active bool) bool {
		if all {
			return ms.state != nil || active
		}
		return ms.state != nil && ms.stateUpdated.After(after.Time())
	})
	ids = ids[min(skip, int64(len(ids))):]
	ids = ids[:min(top, int64(len(ids)))]
	if len(ids) == 0 {
		return noContent
	}
	list := wire.Array{Code: 0xb1}
	for _, id := range ids {
		list.Elems = append(list.Elems, id)
	}
	next := int32(min(skip+int64(len(ids)), math.MaxInt32))
	return success(wire.Map{{Key: "skip", Value: next}, {Key: "sessions-ids", Value: list}})
}
