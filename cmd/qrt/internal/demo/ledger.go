package demo

import (
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"slices"
	"sync"
)

// Content is all of a message that an application acts on.
type Content struct {
	ID            string
	Session       string
	CorrelationID string
	ContentType   string
	Attributes    map[string]string
	Body          []byte
}

// hash covers a queue and a content.
type hash [sha256.Size]byte

// hash is one value for one content in one queue: each part is preceded by its
// length.
func (c *Content) hash(queue string) hash {
	h := sha256.New()
	part := func(b []byte) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(b)))
		h.Write(n[:])
		h.Write(b)
	}
	for _, text := range []string{queue, c.ID, c.Session, c.CorrelationID, c.ContentType} {
		part([]byte(text))
	}
	for _, name := range slices.Sorted(maps.Keys(c.Attributes)) {
		part([]byte(name))
		part([]byte(c.Attributes[name]))
	}
	part(c.Body)
	return hash(h.Sum(nil))
}

// Ledger knows what was sent and what arrived, by SHA-256 of plaintext. It is
// safe for concurrent use.
type Ledger struct {
	mu      sync.Mutex // guards what follows
	entries map[hash]*entry
	turn    map[string]int // of a queue's session: how many were sent
}

// entry is what happened to one content.
type entry struct {
	queue     string
	session   string
	turn      int // its place in its session
	delivered int
	parked    int // found where it was put aside on purpose
}

// NewLedger returns an empty ledger.
func NewLedger() *Ledger {
	return &Ledger{entries: make(map[hash]*entry), turn: make(map[string]int)}
}

// Sent notes a content that is about to be sent. Contents differ: each has an ID
// of its own.
func (l *Ledger) Sent(queue string, c *Content) {
	h := c.hash(queue)
	l.mu.Lock()
	defer l.mu.Unlock()
	e := &entry{queue: queue, session: queue + "\x00" + c.Session}
	if c.Session != "" {
		l.turn[e.session]++
		e.turn = l.turn[e.session]
	}
	l.entries[h] = e
}

// Arrival is what the ledger says of a content that arrived.
type Arrival struct {
	Known  bool // exactly this was sent to this queue
	Times  int  // how often it has arrived, this time included
	Turn   int  // its place in its session, 0 without one
	InLine string
}

// Arrived notes a content that an application was given.
func (l *Ledger) Arrived(queue string, c *Content) Arrival {
	h := c.hash(queue)
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entries[h]
	if e == nil {
		return Arrival{}
	}
	e.delivered++
	return Arrival{Known: true, Times: e.delivered, Turn: e.turn, InLine: e.session}
}

// Parked notes a content that was found where it was put aside on purpose, such
// as among dead letters, and reports whether it was sent.
func (l *Ledger) Parked(queue string, c *Content) bool {
	h := c.hash(queue)
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entries[h]
	if e == nil {
		return false
	}
	e.parked++
	return true
}

// Void takes a content out: it is the attacker's now, who may destroy what the
// broker stores.
func (l *Ledger) Void(queue string, c *Content) {
	h := c.hash(queue)
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.entries, h)
}

// Lost counts contents that were sent to a queue and neither arrived nor were
// put aside; an empty queue means all.
func (l *Ledger) Lost(queue string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, e := range l.entries {
		if (queue == "" || e.queue == queue) && e.delivered == 0 && e.parked == 0 {
			n++
		}
	}
	return n
}

// Sessions counts the sessions of all that was sent.
func (l *Ledger) Sessions() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.turn)
}
