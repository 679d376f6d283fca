package driver

import "time"

// Message is what a sender hands to a broker. A driver must not change it, nor retain it
// after Send has returned, except for the bytes of a sealed body: those are changed by
// neither side, so that a driver may keep them.
type Message struct {
	// ID is the sender's own identity of the message, never empty, at most 128
	// bytes of UTF-8. It survives delivery, dead-lettering and redrive. It is
	// not the broker's identity: see [Delivery.BrokerID].
	ID string

	// SessionID groups messages that must stay in order; empty means none.
	SessionID string

	CorrelationID string
	ContentType   string

	// Attributes are the application's, with names of 1 to 255 bytes. A driver that
	// cannot keep a name or a value (for example an empty one) refuses the message at
	// Send with [Invalid]; it never drops or renames one. Attributes whose name starts
	// with "qrt-" are the library's own.
	Attributes map[string]string

	// Trace holds W3C traceparent and tracestate. It is not the application's,
	// is bound to nothing, and may be lost by a broker that has no room.
	Trace map[string]string

	// Body is carried byte for byte; nil and empty are the same.
	Body []byte

	// Sealed says that Body is a QRE1 envelope. A text transport encodes such
	// a body as strict base64 and marks it. A driver sets it on receipt if
	// its transport says so; package queue looks at the bytes in any case.
	Sealed bool

	// NotBefore is when the message may be delivered first; zero means at once.
	// A driver without Schedule answers errors.ErrUnsupported at Send.
	NotBefore time.Time

	// TTL is how long after Send, or after NotBefore if that is later, the
	// message may still be delivered; 0 means as long as the queue keeps it.
	// If the broker has no TTL the receiving side enforces it from the
	// envelope.
	TTL time.Duration

	// DedupID is the identity by which a broker with Dedup drops repeats; empty
	// means ID. It is stable over retries and never derived from the body.
	DedupID string

	// Received is the message as the broker delivered it, in a form that only the
	// driver knows that set it. Send of a message that has it passes on what the fields
	// above cannot express, such as further properties and the types of attributes, as
	// far as those fields say the same as at receipt. A driver ignores the form of
	// another driver and keeps none. Nil in messages that were not received.
	Received any
}

// Delivery is one receipt of a message. Its fields are the receiver's, and those of Message
// to change: applications get its maps. The driver neither changes nor reads them
// afterwards, except that Renew sets LockedUntil. The bytes of a sealed body are to read
// only: the driver may keep them for the next delivery.
type Delivery struct {
	Message

	// BrokerID is the broker's identity of the stored message: the same at
	// every redelivery of it, another for any copy, stable for as long as the
	// message stays in this queue. Never empty.
	BrokerID string

	// Count is how often the message has been delivered, this time included;
	// 1 at the first. A delivery that ended in Release is not counted if
	// Capabilities.ReleaseUncounted is set. If the broker keeps no exact count it is never less
	// than the truth is known to be. Peeked messages carry the count so far; for one that
	// is held, the current delivery may be missing from it.
	Count int

	// EnqueuedAt is when the broker took the message; zero if unknown.
	EnqueuedAt time.Time

	// LockedUntil is when the lock ends by the receiver's clock; zero for
	// peeked messages and if the lock has no end in time (it ends with the
	// channel or connection).
	LockedUntil time.Time

	// DeadLetter is set on messages received or peeked from a dead-letter queue.
	DeadLetter *DeadLetter

	// Undecodable is set when the transport's own encoding of the message was
	// broken: base64 that does not decode, or metadata that does not parse. Body then
	// holds the bytes as they were stored, and the message is handed up to be
	// dead-lettered.
	Undecodable bool

	// DuplicateName is set when the name of an attribute arrived twice. Attributes then
	// holds one of the values, and the message is handed up to be dead-lettered (qre1,
	// Section 6.1).
	DuplicateName bool

	// Receipt is the driver's own handle for Settle and Renew.
	Receipt any
}

// DeadLetter says why a message lies in a dead-letter queue. The receiver or the
// broker that moved the message wrote it in cleartext; trust it for display only.
type DeadLetter struct {
	Reason      string    // a code, such as "authentication_failed"; "max_deliveries" when the broker moved it
	Description string    // a fixed text, and what a receiver sealed beside it; never payload
	Queue       string    // the queue that it came from
	At          time.Time // when it was moved; zero if unknown
}

// SettleKind says how a delivery is settled.
type SettleKind uint8

// The ways to settle a delivery.
const (
	Complete         SettleKind = 1 + iota // remove it: done
	Abandon                                // give it back after Delay; the delivery counts
	MoveToDeadLetter                       // move it, unchanged, to the dead-letter queue
	Release                                // give it back after Delay; the delivery does not count
)

var dispositions = [...]Disposition{
	Complete:         Completed,
	Abandon:          Abandoned,
	MoveToDeadLetter: DeadLettered,
	Release:          Released,
}

// Disposition is what becomes of a delivery that is settled so; "" for no SettleKind.
func (k SettleKind) Disposition() Disposition {
	if int(k) < len(dispositions) {
		return dispositions[k]
	}
	return ""
}

// String returns the Disposition's spelling.
func (k SettleKind) String() string {
	if d := k.Disposition(); d != "" {
		return string(d)
	}
	return "invalid"
}

// Settlement is one delivery and what becomes of it.
type Settlement struct {
	Delivery *Delivery
	Kind     SettleKind

	// Delay is for Abandon and Release: at least how long until redelivery, 0 to
	// Capabilities.MaxDelay. A driver whose AbandonDelay is None answers
	// errors.ErrUnsupported to a Delay above zero and leaves the lock as it is.
	Delay time.Duration

	// Reason and Description are for MoveToDeadLetter. Reason is a code of at most 64 bytes.
	// Description is UTF-8 of at most 4,096 bytes. A driver keeps it whole, and the first
	// 512 bytes if the message would be too large for the broker with all of it.
	Reason      string
	Description string
}

// SendResult is the outcome for one message of a Send.
type SendResult struct {
	BrokerID string // empty if the broker tells none at send
	Err      error  // nil means the broker has confirmed that it holds the message
}

// RenewResult is the outcome for one delivery of a Renew.
type RenewResult struct {
	LockedUntil time.Time // the new end of the lock; zero if it has no end in time, or with an error
	Err         error     // nil means the lock is extended
}

// Stats are a queue's counts at some recent moment. A count is -1 if the
// broker does not tell.
type Stats struct {
	Ready       int64 // deliverable now
	InFlight    int64 // held under a lock
	Scheduled   int64 // waiting for NotBefore or an abandon's delay
	DeadLetters int64
	// Oldest is when the oldest message that could be delivered now was enqueued: none
	// that is scheduled, waits out a delay, is held, or waits behind one of its session
	// that is. Zero if there is none or the broker does not tell.
	Oldest time.Time
	// Approximate is set if the broker's counts are estimates.
	Approximate bool
}
