package memqueue

import (
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

// message is a stored message. It is guarded by its store's mu.
type message struct {
	driver.Message // a copy of its own
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
	rank     int // place in the heap of those that wait, or are delayed, with it

	token  uint64  // of the delivery that holds it; 0: none
	holder *source // that holds it

	alarm  alarm     // of state: due, delay over, lock over
	expiry alarm     // end
	end    time.Time // when it may be delivered no longer; zero means never
}

func (m *message) before(o *message) bool { return m.seq < o.seq }
func (m *message) place() *int            { return &m.rank }

func (m *message) expired(now time.Time) bool { return !m.end.IsZero() && !m.end.After(now) }

// alarm is something that happens to a message or a session at a time.
type alarm struct {
	at      time.Time
	rank    int
	message *message
	session *session // of a session's lock
}

func (a *alarm) before(b *alarm) bool { return a.at.Before(b.at) }
func (a *alarm) place() *int          { return &a.rank }

// clone returns a copy of m that shares nothing with it but the bytes of a sealed body,
// which nothing changes: they are made once, and opening them makes other bytes
// (driver.Message, driver.Delivery).
func clone(m *driver.Message) driver.Message {
	c := *m
	if m.Sealed {
		c.Body = nil
	}
	c = c.Clone()
	if m.Sealed {
		c.Body = m.Body
	}
	return c
}

// delivery returns m as it is handed out.
func (m *message) delivery() *driver.Delivery {
	d := &driver.Delivery{
		Message:    clone(&m.Message),
		BrokerID:   m.brokerID,
		Count:      m.count,
		EnqueuedAt: m.enqueued,
	}
	if m.dead != nil {
		dead := *m.dead
		d.DeadLetter = &dead
	}
	return d
}
