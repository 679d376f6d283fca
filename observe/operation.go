package observe

import (
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/keys"
)

// Kind names an operation of the library.
type Kind string

// The operations.
const (
	Send    Kind = "send"    // one call to the broker, with Count messages
	Receive Kind = "receive" // one call to the broker, and the opening of what came
	Settle  Kind = "settle"  // one delivery
	Process Kind = "process" // one run of a handler
	Redrive Kind = "redrive" // one batch of dead letters
)

// Operation is what begins. A field that does not concern its Kind is zero.
type Operation struct {
	Kind Kind
	// Disposition is what a Settle is to bring about.
	Disposition driver.Disposition
	// Count is how many messages are sent, redriven, or asked for.
	Count int
	// MessageID, SessionID and KeyID are set if the operation concerns one message.
	MessageID string
	SessionID string
	Encrypted bool
	KeyID     keys.ID
	// Deliveries is how often the message of a Process was delivered, this time
	// included. It comes from the broker.
	Deliveries int
	// Links are the trace contexts that messages carry already, in order; an entry
	// may be nil. Settle and Redrive have them, and the Send of a Batcher, whose
	// messages keep the contexts of their senders.
	Links []map[string]string
}

// Result is how an operation ended.
type Result struct {
	// Err is why it failed. That of a Process is what the handler returned: its
	// text may hold payload.
	Err   error
	Count int // messages sent, received or redriven
	// Took is how long the broker took, if the operation went on after its answer:
	// a Receive ends when its messages are opened. 0 means until now.
	Took time.Duration
	// Disposition is what became of the message of a Process.
	Disposition driver.Disposition
	// Links are the trace contexts of the messages that a Receive brought.
	Links []map[string]string
}
