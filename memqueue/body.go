package memqueue

import (
	"bytes"
	"sync"
	"sync/atomic"
)

// body is the store's own copy of a body that is not sealed. It is held by the stored
// message, and by deliveries until they have copied it. Once nothing holds it, its memory
// is used for another: most of what a message costs in memory is new memory.
type body struct {
	bytes   []byte
	holders atomic.Int32
}

var bodies sync.Pool // of *body that nothing holds

// maxSlack bounds the memory of a message that waits: it is at most so many times that of
// its body.
const maxSlack = 4

// copyBody returns a copy of b that its caller holds.
func copyBody(b []byte) *body {
	c, _ := bodies.Get().(*body)
	switch {
	case c == nil || cap(c.bytes) < len(b):
		c = &body{bytes: bytes.Clone(b)} // so that the memory that is used again grows
	case cap(c.bytes) > maxSlack*len(b):
		bodies.Put(c)
		c = &body{bytes: bytes.Clone(b)}
	default:
		c.bytes = append(c.bytes[:0], b...)
	}
	c.holders.Store(1)
	return c
}

// hold adds a holder. Another holds b.
func (b *body) hold() { b.holders.Add(1) }

// release ends one hold.
func (b *body) release() {
	if b.holders.Add(-1) == 0 {
		bodies.Put(b)
	}
}
