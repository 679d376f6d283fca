package sbemulator

import (
	"encoding/hex"
	"time"
	"unicode/utf8"

	"github.com/queue-runtime/queue/testbed/sbemulator/internal/wire"
)

// formatBatch is the message format of a batch: each data section of it is one
// encoded message.
const formatBatch = 0x80013700

// The annotations that the broker sets. What a sender puts there is dropped:
// clients rely on the types.
const (
	annotationSequence  = "x-opt-sequence-number"
	annotationEnqueued  = "x-opt-enqueued-time"
	annotationLocked    = "x-opt-locked-until"
	annotationState     = "x-opt-message-state"
	annotationSource    = "x-opt-deadletter-source"
	annotationFirst     = "x-opt-enqueue-sequence-number"
	annotationToken     = "x-opt-lock-token" //nolint:gosec // G101: a name
	annotationPartition = "x-opt-partition-key"
)

// parseMessages decodes a transfer: one message, or all of a batch.
func parseMessages(raw []byte, format uint32) ([]*wire.Message, *wire.Error) {
	m, err := wire.ParseMessage(raw)
	if err != nil {
		return nil, &wire.Error{Condition: condDecode, Description: err.Error()}
	}
	if format != formatBatch {
		return []*wire.Message{m}, nil
	}
	parts, ok := m.Data()
	if !ok || len(parts) == 0 {
		return nil, &wire.Error{Condition: condDecode, Description: "a batch without data sections"}
	}
	batch := make([]*wire.Message, 0, len(parts))
	for _, p := range parts {
		m, err := wire.ParseMessage(p)
		if err != nil {
			return nil, &wire.Error{Condition: condDecode, Description: err.Error()}
		}
		batch = append(batch, m)
	}
	return batch, nil
}

// receive stores what arrived by one transfer: all of it or nothing.
func (q *queue) receive(raw []byte, format uint32) wire.State {
	batch, e := parseMessages(raw, format)
	if e == nil {
		e = q.check(batch)
	}
	if e != nil {
		return wire.Rejected{Error: e}
	}
	now := q.s.clock.now()
	for _, m := range batch {
		q.add(m, now)
	}
	return wire.Accepted{}
}

// check readies messages for the store, or says why they cannot be taken.
func (q *queue) check(batch []*wire.Message) *wire.Error {
	size := int64(0)
	for _, m := range batch {
		m.Header.DeliveryCount, m.Header.FirstAcquirer = 0, false
		m.DeliveryAnnotations = nil
		m.Annotations = ownAnnotations(m.Annotations)
		if e := q.checkOne(m); e != nil {
			return e
		}
		if m.Properties.MessageID == nil {
			p := m.Properties
			p.MessageID = newMessageID()
			m.SetProperties(p)
		}
		size += sizeOf(m)
	}
	if q.bytes+size > q.opts.MaxBytes {
		return &wire.Error{Condition: condResourceLimit, Description: "The queue is full: its maximum size has been reached."}
	}
	return nil
}

func (q *queue) checkOne(m *wire.Message) *wire.Error {
	refuse := func(why string) *wire.Error { return &wire.Error{Condition: condNotAllowed, Description: why} }
	if q.sessional() && m.Properties.GroupID == nil {
		return refuse("The SessionId was not set on a message, and it cannot be sent to the entity. Entities that have session support enabled can only receive messages that have the SessionId set to a valid value.")
	}
	if g := m.Properties.GroupID; g != nil && utf8.RuneCountInString(*g) > maxID {
		return refuse("The SessionId is longer than 128 characters.")
	}
	switch id := m.Properties.MessageID.(type) {
	case string:
		if utf8.RuneCountInString(id) > maxID {
			return refuse("The MessageId is longer than 128 characters.")
		}
	case []byte:
		if len(id) > maxID {
			return refuse("The MessageId is longer than 128 bytes.")
		}
	}
	if v, ok := m.Annotations.Get(annotationSchedule); ok {
		if _, ok := v.(wire.Timestamp); !ok {
			return refuse("x-opt-scheduled-enqueue-time is no timestamp.")
		}
	}
	if v, ok := m.Annotations.Get(annotationPartition); ok && v != nil {
		if _, ok := wire.Text(v); !ok {
			return refuse("x-opt-partition-key is no string.")
		}
	}
	return nil
}

// newMessageID returns the ID of a message that was sent without one: 32 hex
// digits, as the service makes them.
func newMessageID() string {
	u := newToken()
	return hex.EncodeToString(u[:])
}

// ownAnnotations returns those that a sender may set.
func ownAnnotations(m wire.Map) wire.Map {
	var own wire.Map
	for _, p := range m {
		switch name, _ := wire.Text(p.Key); name {
		case annotationSequence, annotationEnqueued, annotationLocked, annotationState, annotationSource, annotationFirst:
		default:
			own = append(own, p)
		}
	}
	return own
}

// encode returns r as it is delivered or peeked. l is nil if it is not
// locked for the one who gets it.
func (r *record) encode(l *lock) []byte {
	m := r.msg.Clone()
	m.Header.DeliveryCount = r.failures
	m.Header.FirstAcquirer = r.failures == 0
	a := append(make(wire.Map, 0, len(m.Annotations)+6), m.Annotations...)
	set := func(name string, v any) { a = append(a, wire.Pair{Key: wire.Symbol(name), Value: v}) }
	set(annotationSequence, r.seq)
	set(annotationFirst, r.seq)
	set(annotationEnqueued, wire.TimestampOf(r.enqueued))
	set(annotationState, int32(r.state))
	var until time.Time
	switch {
	case l != nil:
		until = l.lockedUntil()
		m.DeliveryAnnotations = wire.Map{{Key: wire.Symbol(annotationToken), Value: l.token}}
	case r.lock != nil:
		until = r.lock.lockedUntil()
	}
	if !until.IsZero() {
		set(annotationLocked, wire.TimestampOf(until))
	}
	m.Annotations = a
	return m.Append(make([]byte, 0, m.Size()+512))
}
