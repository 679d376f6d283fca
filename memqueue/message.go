package memqueue

import (
	"bytes"
	"maps"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// state is where a message is in its life.
type state uint8

const (
	waiting   state = iota // deliverable, as far as it alone is concerned
	scheduled              // never delivered, waits for its NotBefore
	delayed                // abandoned, waits for the delay to end
	locked                 // delivered and not settled
)

// message is a stored message. It is guarded by its store's mu. The maps and the bytes of the
// embedded Message do not change, so that they can be copied without it.
type message struct {
	driver.Message       // a copy of its own
	body           *body // what Body is of; nil of a sealed or empty one, and once the message is gone
	brokerID       string
	seq            uint64 // its place in the order of storage
	size           int
	enqueued       time.Time
	since          time.Time // when it came into this subqueue
	count          int       // deliveries in this subqueue
	dead           *driver.DeadLetter

	subqueue *subqueue
	session  *session // nil among dead letters, and without a SessionID
	state    state
	rank     int // place in the heap of those that wait, or are delayed, with it, or among those that its holder has
	slot     int // place in the row of those that wait

	token  uint64  // of the delivery that holds it; 0: none
	holder *source // that holds it

	alarm  alarm     // of state: due, delay over, lock over
	expiry alarm     // end
	end    time.Time // when it may be delivered no longer; zero means never
}

func (m *message) before(o *message) bool { return m.seq < o.seq }
func (m *message) place() *int            { return &m.rank }

func (m *message) expired(now time.Time) bool { return !m.end.IsZero() && !m.end.After(now) }

// holding is the messages that a source has locked, in no order.
type holding []*message

func (h *holding) add(m *message) {
	*h = append(*h, m)
	m.rank = len(*h)
}

func (h *holding) remove(m *message) {
	all, last := *h, len(*h)-1
	all[m.rank-1] = all[last]
	all[last].rank = m.rank
	all[last], *h = nil, all[:last]
	m.rank = 0
}

// alarm is something that happens to a message or a session at a time.
type alarm struct {
	at      time.Time
	rank    int
	message *message
	session *session // of a session's lock
}

func (a *alarm) before(b *alarm) bool { return a.at.Before(b.at) }
func (a *alarm) place() *int          { return &a.rank }

// newMessage returns a copy of m that shares nothing with it but the bytes of a sealed
// body, which nothing changes: they are made once, and opening them makes other bytes
// (driver.Message, driver.Delivery).
func newMessage(m *driver.Message) *message {
	c := &message{Message: *m, size: m.Bytes()}
	c.Attributes, c.Trace = maps.Clone(m.Attributes), maps.Clone(m.Trace)
	c.Received = nil // of the broker that it came from
	switch {
	case len(m.Body) == 0:
		c.Body = nil // an empty body of the sender's may have room behind it
	case !m.Sealed:
		c.body = copyBody(m.Body)
		c.Body = c.body.bytes
	}
	return c
}

// delivery is a message that is handed out.
type delivery struct {
	driver.Delivery
	receipt receipt
	body    *body // of the message, held until own; nil if the bytes are shared
}

// delivery returns m as it is handed out. The caller calls own when the store is not locked
// any more.
func (m *message) delivery() *delivery {
	d := &delivery{body: m.body, Delivery: driver.Delivery{
		Message:    m.Message,
		BrokerID:   m.brokerID,
		Count:      m.count,
		EnqueuedAt: m.enqueued,
	}}
	if d.body != nil {
		d.body.hold()
	}
	if m.dead != nil {
		dead := *m.dead
		d.DeadLetter = &dead
	}
	return d
}

// own makes d share nothing with the message but the bytes of a sealed body.
func (d *delivery) own() *driver.Delivery {
	d.Attributes, d.Trace = maps.Clone(d.Attributes), maps.Clone(d.Trace)
	if d.body != nil {
		d.Body = bytes.Clone(d.Body)
		d.body.release()
		d.body = nil
	}
	return &d.Delivery
}

// own makes a list of deliveries the caller's.
func own(list []*delivery) []*driver.Delivery {
	if len(list) == 0 {
		return nil
	}
	out := make([]*driver.Delivery, len(list))
	for i, d := range list {
		out[i] = d.own()
	}
	return out
}
