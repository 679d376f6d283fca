package sbemulator

import (
	"time"

	"github.com/queue-runtime/queue/testbed/sbemulator/internal/wire"
)

const annotationSchedule = "x-opt-scheduled-enqueue-time"

// scheduledTime is when the message asks to become active.
func scheduledTime(m *wire.Message) (time.Time, bool) {
	v, _ := m.Annotations.Get(annotationSchedule)
	at, ok := v.(wire.Timestamp)
	return at.Time(), ok
}

// schedule keeps r back until at.
func (q *queue) schedule(r *record, at time.Time) {
	r.state, r.scheduled = Scheduled, at
	r.timer = q.s.clock.at(at, func() { q.comeDue(r) })
}

// comeDue makes a scheduled message active, as if it arrived now: it gets a new
// number at the end of the queue.
func (q *queue) comeDue(r *record) {
	q.remove(r)
	q.activate(q.newRecord(r.msg), q.s.clock.now())
}

// scheduleMessage stores a message of the management operation, which is always
// told a number, even if the time is past.
func (q *queue) scheduleMessage(m *wire.Message, now time.Time) int64 {
	if q.duplicate(m, now) {
		q.lastSeq++
		return q.lastSeq
	}
	r := q.newRecord(m)
	r.enqueued = now
	number := r.seq
	at, _ := scheduledTime(m)
	q.schedule(r, at)
	if !at.After(now) {
		q.comeDue(r)
	}
	return number
}

// cancelScheduled removes scheduled messages: all of them, or none if one is
// not scheduled.
func (q *queue) cancelScheduled(numbers []int64) bool {
	var found []*record
	for _, n := range numbers {
		r := q.bySeq[n]
		if r == nil || r.state != Scheduled {
			return false
		}
		found = append(found, r)
	}
	for _, r := range found {
		if r.q != nil { // a number may stand twice
			q.remove(r)
		}
	}
	return true
}
