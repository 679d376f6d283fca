package sealing

import (
	"sync"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
)

// contextData is room for an encoded context. What is in it is known to the broker, so that
// it may stay in memory.
type contextData struct{ b []byte }

// maxContextData bounds what is kept of one, in bytes.
const maxContextData = 16 << 10

var contexts = sync.Pool{New: func() any { return &contextData{b: make([]byte, 0, 512)} }}

// contextFor returns room for the context of a message that c seals or opens. It is used
// again if c is a Cipher: another Crypto may keep what it is given.
func contextFor(c Crypto) *contextData {
	if _, ok := c.(*Cipher); !ok {
		return &contextData{}
	}
	d, _ := contexts.Get().(*contextData) // holds nothing else
	return d
}

// done gives the room back once nothing refers to it.
func (d *contextData) done(c Crypto) {
	if _, ok := c.(*Cipher); ok && cap(d.b) <= maxContextData {
		contexts.Put(d)
	}
}

// encode returns the data that an envelope authenticates beside its header: it is valid
// until done.
func (d *contextData) encode(m *driver.Message, bound []string) ([]byte, error) {
	data, err := envelope.AppendContext(d.b[:0], &envelope.Context{
		MessageID:     m.ID,
		SessionID:     m.SessionID,
		ContentType:   m.ContentType,
		CorrelationID: m.CorrelationID,
		Attributes:    m.Attributes,
	}, bound)
	if err == nil {
		d.b = data
	}
	return data, err
}
