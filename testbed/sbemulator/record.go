package sbemulator

import (
	"slices"
	"strconv"
	"time"

	"github.com/queue-runtime/queue/testbed/sbemulator/internal/wire"
)

// State is the state of a stored message, as Service Bus numbers them.
type State int32

// The states.
const (
	Active    State = 0 // deliverable, or locked
	Deferred  State = 1 // received by its sequence number only
	Scheduled State = 2 // becomes active at a time
)

func (s State) String() string {
	switch s {
	case Active:
		return "active"
	case Deferred:
		return "deferred"
	case Scheduled:
		return "scheduled"
	}
	return "invalid"
}

// record is a stored message. Server.mu guards it; msg is replaced, never
// changed, so that what was handed out stays as it is.
type record struct {
	q     *queue // nil when it is removed
	seq   int64
	msg   *wire.Message
	size  int64
	state State

	enqueued  time.Time
	expires   time.Time // zero means never
	scheduled time.Time
	timer     *timer // for expires or scheduled

	failures uint32 // deliveries that did not succeed
	lock     *lock  // nil means free
	session  *messageSession
	ready    bool   // in a heap of deliverable records
	source   string // of a dead letter: the queue it came from
}

// add stores a message that was checked, and returns its record: nil when it
// was recognized as a duplicate.
func (q *queue) add(m *wire.Message, now time.Time) *record {
	if q.duplicate(m, now) {
		return nil
	}
	r := q.newRecord(m)
	r.enqueued = now
	if at, ok := scheduledTime(m); ok && at.After(now) {
		q.schedule(r, at)
		return r
	}
	q.activate(r, now)
	return r
}

func (q *queue) newRecord(m *wire.Message) *record {
	n := q.main()
	n.lastSeq++
	r := &record{seq: n.lastSeq, msg: m, size: sizeOf(m)}
	q.insert(r)
	return r
}

// recordBytes is what a stored message counts beside its own bytes, so that empty
// ones fill a queue, too.
const recordBytes = 256

func sizeOf(m *wire.Message) int64 { return int64(m.Size()) + recordBytes }

// insert puts r in its place by number.
func (q *queue) insert(r *record) {
	r.q = q
	q.bySeq[r.seq] = r
	q.main().bytes += r.size
	if n := len(q.order); n == 0 || q.order[n-1].seq < r.seq {
		q.order = append(q.order, r)
	} else {
		i, _ := slices.BinarySearchFunc(q.order, r.seq, bySequence)
		q.order = slices.Insert(q.order, i, r)
	}
	if q.sessional() {
		id := ""
		if g := r.msg.Properties.GroupID; g != nil {
			id = *g
		}
		r.session = q.session(id)
		r.session.records++
	}
}

func bySequence(r *record, seq int64) int {
	switch {
	case r.seq < seq:
		return -1
	case r.seq > seq:
		return 1
	}
	return 0
}

// remove takes r out of the store, with its lock and timer.
func (q *queue) remove(r *record) {
	q.unlock(r.lock)
	q.s.clock.stop(r.timer)
	r.timer = nil
	delete(q.bySeq, r.seq)
	q.main().bytes -= r.size
	r.q = nil
	if r.session != nil {
		r.session.records--
		r.session.forget()
		r.session = nil
	}
	if q.removed++; q.removed > 64 && q.removed > len(q.order)/2 {
		q.order = slices.DeleteFunc(q.order, func(r *record) bool { return r.q != q })
		q.removed = 0
	}
}

// activate makes a new record deliverable and starts its life.
func (q *queue) activate(r *record, now time.Time) {
	r.state, r.enqueued = Active, now
	q.startLife(r)
	q.makeReady(r)
}

// startLife sets the end of r's life from its TTL and the queue's. The life of
// dead letters has no end.
func (q *queue) startLife(r *record) {
	ttl := q.opts.DefaultTTL
	if h := r.msg.Header.TTL; h != nil {
		if own := time.Duration(*h) * time.Millisecond; ttl == 0 || own < ttl {
			ttl = own
		}
	}
	r.expires = time.Time{}
	if ttl > 0 && q.source == nil {
		r.expires = r.enqueued.Add(ttl)
		r.timer = q.s.clock.at(r.expires, func() { q.expire(r) })
	}
}

// expire ends the life of r, unless it is locked or deferred: those end when
// they come back, or when they are asked for.
func (q *queue) expire(r *record) {
	r.timer = nil
	if r.lock != nil || r.state == Deferred {
		return
	}
	q.endLife(r)
}

func (q *queue) endLife(r *record) {
	if q.opts.DeadLetterOnExpiry {
		q.deadLetter(r, "TTLExpiredException", "The message expired and was dead lettered.", nil)
		return
	}
	q.remove(r)
}

func (r *record) expired(now time.Time) bool {
	return !r.expires.IsZero() && !now.Before(r.expires)
}

// makeReady offers r to receivers.
func (q *queue) makeReady(r *record) {
	switch {
	case r.state != Active || r.lock != nil || r.ready:
	case r.session != nil:
		r.ready = true
		r.session.ready.push(r)
		r.session.pump()
		q.grantWaiting()
	default:
		r.ready = true
		q.ready.push(r)
		q.pump()
	}
}

// Whether a delivery that did not succeed counts.
const (
	givenBack      = false
	deliveryFailed = true
)

// comeBack makes r available after a delivery that did not succeed, or moves it
// away when it was delivered too often or lived too long.
func (q *queue) comeBack(r *record, failed bool) {
	if failed {
		r.failures++
		if q.source == nil && int64(r.failures) >= int64(q.opts.MaxDeliveryCount) {
			q.deadLetter(r, "MaxDeliveryCountExceeded",
				"Message could not be consumed after "+strconv.Itoa(q.opts.MaxDeliveryCount)+" delivery attempts.", nil)
			return
		}
	}
	if r.state == Active && r.expired(q.s.clock.now()) {
		q.endLife(r)
		return
	}
	q.makeReady(r)
}

// deadLetter moves r to the dead letters with its number, its counts and its
// time of arrival. q has dead letters, and is none.
func (q *queue) deadLetter(r *record, reason, description string, changes wire.Map) {
	m := r.msg.Clone()
	app := merge(m.Application, changes)
	if reason != "" {
		app = app.With("DeadLetterReason", reason)
	}
	if description != "" {
		app = app.With("DeadLetterErrorDescription", description)
	}
	m.SetApplication(app)
	q.remove(r)
	dead := &record{
		seq: r.seq, msg: m, size: sizeOf(m),
		enqueued: r.enqueued, failures: r.failures, source: q.path,
	}
	q.dead.insert(dead)
	q.dead.makeReady(dead)
}

// modify merges properties into r's application properties, as abandoning and
// deferring do.
func (r *record) modify(changes wire.Map) {
	if len(changes) == 0 {
		return
	}
	m := r.msg.Clone()
	m.SetApplication(merge(m.Application, changes))
	r.setMessage(m)
}

// merge sets the changes among application properties, whose keys are strings
// (messaging 3.2.5).
func merge(app, changes wire.Map) wire.Map {
	for _, p := range changes {
		if key, ok := wire.Text(p.Key); ok {
			app = app.With(key, p.Value)
		}
	}
	return app
}

func (r *record) setMessage(m *wire.Message) {
	size := sizeOf(m)
	r.q.main().bytes += size - r.size
	r.msg, r.size = m, size
}

// duplicate reports whether the message's ID is remembered, and remembers it.
func (q *queue) duplicate(m *wire.Message, now time.Time) bool {
	if q.opts.DuplicateDetectionWindow <= 0 || m.Properties.MessageID == nil {
		return false
	}
	id := comparableID(m.Properties.MessageID)
	for len(q.seenOrder) > 0 && (!q.seenOrder[0].at.After(now) || len(q.seenOrder) >= maxSeen) {
		if old := q.seenOrder[0]; q.seen[old.id].Equal(old.at) {
			delete(q.seen, old.id)
		}
		q.seenOrder = q.seenOrder[1:]
	}
	if _, ok := q.seen[id]; ok {
		return true
	}
	until := now.Add(q.opts.DuplicateDetectionWindow)
	q.seen[id] = until
	q.seenOrder = append(q.seenOrder, seenID{id, until})
	return false
}

// maxSeen is how many message IDs a queue remembers.
const maxSeen = 1 << 18

// comparableID makes a message ID a key. Binary IDs differ from strings.
func comparableID(v any) any {
	if b, ok := v.([]byte); ok {
		return struct{ binary string }{string(b)}
	}
	return v
}
