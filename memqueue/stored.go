package memqueue

import (
	"bytes"
	"context"
	"slices"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// Stored is a message as the broker's storage holds it: what an attacker who controls
// the broker sees and can change.
type Stored struct {
	driver.Message
	BrokerID   string
	Count      int // deliveries
	EnqueuedAt time.Time
	Held       bool               // locked by a receiver now
	DeadLetter *driver.DeadLetter // of a dead letter
}

func (m *message) stored() Stored {
	d := m.delivery().own()
	d.Body = bytes.Clone(d.Body) // of a sealed body, too: an attacker changes bytes
	return Stored{Message: d.Message, BrokerID: d.BrokerID, Count: d.Count, EnqueuedAt: d.EnqueuedAt, Held: m.state == locked, DeadLetter: d.DeadLetter}
}

// Stored returns what a queue holds, in the order of storage. It needs no
// connection and works after Close.
func (b *Broker) Stored(queue string) ([]Stored, error) {
	return b.stored(queue, func(s *store) *subqueue { return &s.active })
}

// StoredDeadLetters returns what the queue's dead-letter queue holds, as Stored
// does.
func (b *Broker) StoredDeadLetters(queue string) ([]Stored, error) {
	return b.stored(queue, func(s *store) *subqueue { return &s.dead })
}

func (b *Broker) stored(queue string, subqueue func(*store) *subqueue) ([]Stored, error) {
	s, err := b.store(queue, false)
	if err != nil {
		return nil, err
	}
	s.lock()
	defer s.unlock()
	var out []Stored
	for _, m := range subqueue(s).sequence.all() {
		out = append(out, m.stored())
	}
	return out, nil
}

// Rewrite replaces the messages of a queue that are not held by the result of f, in
// that order, without any check or limit. Each is stored as if sent at this moment,
// with its BrokerID and Count; if the BrokerID is empty, it gets one. The queue is
// locked while f runs: f must not call the broker.
func (b *Broker) Rewrite(queue string, f func([]Stored) []Stored) error {
	s, err := b.store(queue, false)
	if err != nil {
		return err
	}
	now := s.lock()
	defer s.unlock()
	var loose []*message
	var before []Stored
	for _, m := range s.active.sequence.all() {
		if m.state != locked {
			loose = append(loose, m)
			before = append(before, m.stored())
		}
	}
	after := f(before)
	for _, m := range loose {
		s.remove(m)
	}
	for i := range after {
		replacement := after[i].Clone() // what f keeps is not what is stored
		m := newMessage(&replacement)
		m.brokerID, m.count = after[i].BrokerID, after[i].Count
		s.put(m, now)
	}
	return nil
}

// Attacker controls a broker: it reads and rewrites what is stored, past the
// code of the driver. It is what drivertest.Attacker asks for.
type Attacker struct{ broker *Broker }

// Attacker returns the attacker of this broker.
func (b *Broker) Attacker() *Attacker { return &Attacker{broker: b} }

// Read returns the messages of a queue that are not held.
func (a *Attacker) Read(ctx context.Context, queue string) ([]driver.Message, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	all, err := a.broker.Stored(queue)
	all = slices.DeleteFunc(all, func(m Stored) bool { return m.Held })
	return messages(all), err
}

// Rewrite replaces the messages of a queue that are not held. The replacements are new
// to the broker: they get new BrokerIDs, are due at once and never expire.
func (a *Attacker) Rewrite(ctx context.Context, queue string, f func([]driver.Message) []driver.Message) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return a.broker.Rewrite(queue, func(all []Stored) []Stored {
		var out []Stored
		for _, m := range f(messages(all)) {
			m.NotBefore, m.TTL = time.Time{}, 0
			out = append(out, Stored{Message: m})
		}
		return out
	})
}

// DeadLetters returns the messages of the queue's dead-letter queue, and why
// each lies there.
func (a *Attacker) DeadLetters(ctx context.Context, queue string) ([]driver.Message, []driver.DeadLetter, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	all, err := a.broker.StoredDeadLetters(queue)
	var why []driver.DeadLetter
	for _, m := range all {
		why = append(why, *m.DeadLetter)
	}
	return messages(all), why, err
}

func messages(all []Stored) []driver.Message {
	var out []driver.Message
	for _, m := range all {
		out = append(out, m.Message)
	}
	return out
}
