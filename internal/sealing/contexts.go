package sealing

import (
	"sync"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
)

// contextRoom is memory for the context of one message while it is sealed or opened. What is
// in it is known to the broker, so that it may stay in memory.
type contextRoom struct {
	context []byte   // encoded
	names   []string // of bound attributes
}

// maxContext bounds what is kept of a context, in bytes.
const maxContext = 16 << 10

var rooms = sync.Pool{New: func() any { return &contextRoom{context: make([]byte, 0, 512)} }}

// roomFor returns room for a message that c seals or opens. It is used again if c is a
// Cipher: another Crypto may keep what it is given.
func roomFor(c Crypto) *contextRoom {
	if _, ok := c.(*Cipher); !ok {
		return &contextRoom{}
	}
	r, _ := rooms.Get().(*contextRoom) // holds nothing else
	return r
}

// done gives the room back once nothing refers to it.
func (r *contextRoom) done(c Crypto) {
	if _, ok := c.(*Cipher); ok && cap(r.context) <= maxContext {
		clear(r.names) // they are parts of the header, which need not live longer
		rooms.Put(r)
	}
}

// encode returns the data that an envelope authenticates beside its header: it is valid
// until done.
func (r *contextRoom) encode(m *driver.Message, bound []string) ([]byte, error) {
	data, err := envelope.AppendContext(r.context[:0], &envelope.Context{
		MessageID:     m.ID,
		SessionID:     m.SessionID,
		ContentType:   m.ContentType,
		CorrelationID: m.CorrelationID,
		Attributes:    m.Attributes,
	}, bound)
	r.context = data // nil after an error
	return data, err
}
