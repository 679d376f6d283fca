package sbemulator

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/queue-runtime/queue/testbed/sbemulator/internal/wire"
)

// Message is a stored message, seen from inside the broker. The functions that
// take and give it work on the store itself, past every check: with them a test
// plays a broker that cheats.
type Message struct {
	// These tell how the message is stored. Alter and Insert ignore them, but
	// for DeliveryCount.
	SequenceNumber int64
	State          State
	Locked         bool
	LockedUntil    time.Time // zero if it is not locked
	EnqueuedAt     time.Time
	ExpiresAt      time.Time // zero means never
	ScheduledFor   time.Time // zero if it is not scheduled
	Source         string    // of a dead letter: its queue

	// DeliveryCount is how many deliveries have not succeeded.
	DeliveryCount uint32

	// The properties of the message. Empty means absent, except for SessionID,
	// which may be the empty string: nil is absent. IDs that are no strings are
	// shown in a readable form, and stay what they are unless they are changed.
	MessageID     string
	SessionID     *string
	CorrelationID string
	ContentType   string
	Subject       string
	To            string
	ReplyTo       string

	// ApplicationProperties has values of the types bool, string, []byte,
	// integers of a stated size, float32, float64, time.Time and [16]byte. Others
	// are shown in a readable form; leave them as they are.
	ApplicationProperties map[string]any

	// Body is the message's data, nil if the body is not data.
	Body []byte
}

// Messages returns copies of the stored messages of a queue, in order. The path
// may be that of dead letters: queue/$DeadLetterQueue. Error: ErrQueueNotFound.
func (s *Server) Messages(path string) ([]Message, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q, err := s.lookup(path)
	if err != nil {
		return nil, err
	}
	var out []Message
	for _, r := range q.order {
		if r.q == q {
			out = append(out, r.view())
		}
	}
	return out, nil
}

// Alter changes a stored message: change gets a copy and what it leaves there
// replaces the message. What is not changed stays byte for byte. A receiver that
// holds the message already has the old one. Errors: ErrQueueNotFound,
// ErrMessageNotFound, an application property of an unknown type.
func (s *Server) Alter(path string, sequenceNumber int64, change func(*Message)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.stored(path, sequenceNumber)
	if err != nil {
		return err
	}
	before, after := r.view(), r.view()
	change(&after)
	m := r.msg.Clone()
	if err := after.overlay(m, &before); err != nil {
		return err
	}
	q, session := r.q, r.session
	r.setMessage(m)
	r.failures = after.DeliveryCount
	if session != nil && before.sessionID() != after.sessionID() {
		q.resettle(r)
	}
	return nil
}

// Move takes a stored message out of one queue and appends it to another, as it is:
// locks end, and their holders are not notified. It returns its number there. Errors:
// ErrQueueNotFound, ErrMessageNotFound.
func (s *Server) Move(from string, sequenceNumber int64, to string) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.stored(from, sequenceNumber)
	if err != nil {
		return 0, err
	}
	q, err := s.lookup(to)
	if err != nil {
		return 0, err
	}
	m := r.msg
	r.q.remove(r)
	return q.appendActive(m, r.failures), nil
}

// Duplicate appends a copy of a stored message to its queue and returns the
// copy's number. Errors: ErrQueueNotFound, ErrMessageNotFound.
func (s *Server) Duplicate(path string, sequenceNumber int64) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.stored(path, sequenceNumber)
	if err != nil {
		return 0, err
	}
	return r.q.appendActive(r.msg, 0), nil
}

// Insert appends a message to a queue that no client sent, and returns its sequence
// number. It fails with ErrQueueNotFound, or if an application property is of an
// unknown type.
func (s *Server) Insert(path string, m *Message) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q, err := s.lookup(path)
	if err != nil {
		return 0, err
	}
	w := &wire.Message{Header: wire.Header{Priority: 4}}
	w.SetProperties(wire.Properties{})
	w.SetData(nil)
	if err := m.overlay(w, &Message{}); err != nil {
		return 0, err
	}
	return q.appendActive(w, m.DeliveryCount), nil
}

// Remove deletes a stored message. Errors: ErrQueueNotFound,
// ErrMessageNotFound.
func (s *Server) Remove(path string, sequenceNumber int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.stored(path, sequenceNumber)
	if err != nil {
		return err
	}
	r.q.remove(r)
	return nil
}

func (s *Server) stored(path string, sequenceNumber int64) (*record, error) {
	q, err := s.lookup(path)
	if err != nil {
		return nil, err
	}
	r := q.bySeq[sequenceNumber]
	if r == nil {
		return nil, ErrMessageNotFound
	}
	return r, nil
}

// appendActive stores m at the end of q and offers it.
func (q *queue) appendActive(m *wire.Message, failures uint32) int64 {
	r := q.newRecord(m)
	r.failures = failures
	if q.source != nil {
		r.source = q.source.path
	}
	q.activate(r, q.s.clock.now())
	return r.seq
}

// resettle puts r, whose session ID was changed, where it now belongs.
func (q *queue) resettle(r *record) {
	moved := *r
	q.remove(r)
	moved.lock, moved.timer, moved.ready = nil, nil, false
	q.insert(&moved)
	switch {
	case moved.state == Scheduled:
		q.schedule(&moved, moved.scheduled)
	case !moved.expires.IsZero():
		moved.timer = q.s.clock.at(moved.expires, func() { q.expire(&moved) })
	}
	q.makeReady(&moved)
}

func (r *record) view() Message {
	p := r.msg.Properties
	m := Message{
		SequenceNumber: r.seq, State: r.state, Locked: r.lock != nil,
		EnqueuedAt: r.enqueued, ExpiresAt: r.expires, Source: r.source,
		DeliveryCount: r.failures,
		MessageID:     readable(p.MessageID), CorrelationID: readable(p.CorrelationID),
		ContentType: deref(p.ContentType), Subject: deref(p.Subject), To: deref(p.To), ReplyTo: deref(p.ReplyTo),
		Body: r.msg.Body(),
	}
	if r.lock != nil {
		m.LockedUntil = r.lock.lockedUntil()
	}
	if r.state == Scheduled {
		m.ScheduledFor = r.scheduled
	}
	if p.GroupID != nil {
		id := *p.GroupID
		m.SessionID = &id
	}
	if len(r.msg.Application) > 0 {
		m.ApplicationProperties = map[string]any{}
		for _, p := range r.msg.Application {
			if name, ok := wire.Text(p.Key); ok {
				m.ApplicationProperties[name] = fromWire(p.Value)
			}
		}
	}
	return m
}

func (m *Message) sessionID() string { return deref(m.SessionID) }

// overlay changes in w what differs between m and before.
func (m *Message) overlay(w *wire.Message, before *Message) error {
	p := w.Properties
	changed := false
	set := func(field **string, now, was string) {
		if now != was {
			changed, *field = true, nonEmpty(now)
		}
	}
	set(&p.ContentType, m.ContentType, before.ContentType)
	set(&p.Subject, m.Subject, before.Subject)
	set(&p.To, m.To, before.To)
	set(&p.ReplyTo, m.ReplyTo, before.ReplyTo)
	for _, id := range []struct {
		field    *any
		now, was string
	}{{&p.MessageID, m.MessageID, before.MessageID}, {&p.CorrelationID, m.CorrelationID, before.CorrelationID}} {
		if id.now != id.was {
			changed, *id.field = true, nil
			if id.now != "" {
				*id.field = id.now
			}
		}
	}
	if (m.SessionID == nil) != (before.SessionID == nil) || m.sessionID() != before.sessionID() {
		changed, p.GroupID = true, nil
		if m.SessionID != nil {
			id := *m.SessionID
			p.GroupID = &id
		}
	}
	if changed {
		w.SetProperties(p)
	}
	if err := m.overlayApplication(w, before); err != nil {
		return err
	}
	if string(m.Body) != string(before.Body) {
		w.SetData(slices.Clone(m.Body))
	}
	return nil
}

func (m *Message) overlayApplication(w *wire.Message, before *Message) error {
	app, changed := slices.Clone(w.Application), false
	for name := range before.ApplicationProperties {
		if _, ok := m.ApplicationProperties[name]; !ok {
			changed = true
			app = slices.DeleteFunc(app, func(p wire.Pair) bool { s, _ := wire.Text(p.Key); return s == name })
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.ApplicationProperties)) {
		v := m.ApplicationProperties[name]
		if was, ok := before.ApplicationProperties[name]; ok && sameValue(was, v) {
			continue
		}
		x, ok := toWire(v)
		if !ok {
			return fmt.Errorf("sbemulator: application property of type %T", v)
		}
		changed = true
		app = app.With(name, x)
	}
	if changed {
		w.SetApplication(app)
	}
	return nil
}

// Stats are the counts of one queue.
type Stats struct {
	Active      int // deliverable
	Locked      int
	Deferred    int
	Scheduled   int
	DeadLetters int
	Sessions    int // held by receivers
	Waiting     int // receivers that wait for the next session
	Bytes       int64
}

// Stats counts what is in a queue. Error: ErrQueueNotFound.
func (s *Server) Stats(path string) (Stats, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q, err := s.lookup(path)
	if err != nil {
		return Stats{}, err
	}
	st := Stats{Waiting: len(q.waiting), Bytes: q.main().bytes}
	for _, r := range q.bySeq {
		switch {
		case r.lock != nil:
			st.Locked++
		case r.state == Deferred:
			st.Deferred++
		case r.state == Scheduled:
			st.Scheduled++
		default:
			st.Active++
		}
	}
	for _, ms := range q.sessions {
		if ms.held {
			st.Sessions++
		}
	}
	if q.dead != nil {
		st.DeadLetters = len(q.dead.bySeq)
	}
	return st, nil
}
