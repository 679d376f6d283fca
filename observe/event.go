package observe

import (
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/keys"
)

// Sealed: a sender sealed one message.
type Sealed struct {
	Took  time.Duration // includes the look-up of the key
	KeyID keys.ID
	Bytes int // of the plaintext
}

// Sent: the broker confirmed one message.
type Sent struct {
	Encrypted bool
	KeyID     keys.ID // empty unless Encrypted
	Bytes     int     // of the body as the broker stores it, before its own encoding
}

// Opened: a receiver tried to open one sealed message.
type Opened struct {
	Took  time.Duration // includes the look-up of the key
	KeyID keys.ID       // authentic only if Err is nil
	Bytes int           // of the plaintext; 0 if it did not open
	Err   error         // nil: it opened
}

// Received: one message is handed to the application.
type Received struct {
	Encrypted bool
	KeyID     keys.ID // empty unless Encrypted
	Bytes     int     // of the plaintext
}

// Rejected: one message was received and not delivered.
type Rejected struct {
	Reason      string             // the code of the finding
	Disposition driver.Disposition // what became of the message
	KeyID       keys.ID            // as the message says; not authenticated
	SettleErr   error              // not nil: the disposition failed, and the lock runs out
}

// Duplicate: a message that was handled before came back, because its completion
// was lost, and was completed.
type Duplicate struct {
	KeyID     keys.ID
	SettleErr error // not nil: completing it failed
}

// Gap: a message was received before the one that its sender sent before it in the same
// session, which is still on its way, or was dropped or held back.
type Gap struct {
	Sender string // who sealed it; authentic
}

// DeadLettered: one message was moved to the dead-letter queue.
type DeadLettered struct {
	Reason string // a code of this library or the application's
}

// Flood: messages that cannot be read are dead-lettered faster than a few by chance:
// forgeries, or no envelopes at all. It is told at most once a minute for each queue of a
// Client.
type Flood struct {
	Reason string // the code of the message that raised it
	Count  int    // how many there were since the last Flood
}

// Redriven: one dead letter was sent back and removed.
type Redriven struct {
	Resealed bool // it was sealed anew
}

// CryptoError: something was found wrong with a message, a session's state, or in
// sealing. Rejections have one each; plaintext_allowed and a sender's
// encryption_failed are no rejections.
type CryptoError struct {
	Reason string  // the code of the finding
	KeyID  keys.ID // not authenticated; empty if no key is concerned
}

// Handled: a handler returned and its message was settled.
type Handled struct {
	Took        time.Duration
	Disposition driver.Disposition
	Err         error // what the handler returned: its text may hold payload
}

// Retried: a handled message was given back, to be delivered again after Delay.
type Retried struct {
	Delay time.Duration
	// Planned is set if the handler asked for the delay and nothing failed. The
	// Result of such a Process has no Err.
	Planned bool
}

// Renewed: the lock of a message or session was renewed.
type Renewed struct {
	Err error // not nil: it could not be
}

// Configured: a sender or receiver opened its queue.
type Configured struct {
	Role      Role
	Encrypted bool // it has encryption enabled
}

// Role says which part of the library a Source is.
type Role string

// The roles.
const (
	Sender     Role = "sender"
	Receiver   Role = "receiver"
	DeadLetter Role = "dead_letter" // a tool over the dead-letter queue
	Worker     Role = "worker"      // runs handlers; it is never Configured
)

// Closed: a sender, a receiver or a dead-letter tool was closed, alone or with its
// client, or the Run of a worker returned. Each Configured is followed by one Closed
// with the same Source and Role at most, and so is each Run. An Observer forgets the
// states of the Source then: after the Closed of a Worker that of its breaker, after
// the others whether encryption is enabled, the key in use, and what paused it.
type Closed struct {
	Role Role
}

// KeyUsed: a sender began to seal under another key.
type KeyUsed struct {
	KeyID   keys.ID
	Created time.Time // zero if unknown
	Expires time.Time // zero if it does not expire
}

// Paused: a receiver stopped fetching.
type Paused struct {
	Reason string // the code of what stopped it
}

// Resumed: a receiver fetches again.
type Resumed struct {
	Reason string // the code of what had stopped it
}

// Session: a session was accepted or ended.
type Session struct {
	State SessionState
}

// SessionState says what became of a session.
type SessionState string

// The states of a session. All but SessionAccepted are ends.
const (
	SessionAccepted SessionState = "accepted"
	SessionClosed   SessionState = "closed"  // by its holder
	SessionLost     SessionState = "lost"    // its lock ran out, or the broker took it away
	SessionBlocked  SessionState = "blocked" // released because a message of it must wait
)

// Breaker: a circuit breaker changed its state.
type Breaker struct {
	State string // "closed", "open" or "half_open"
}

// InFlight: the number of handlers that run changed.
type InFlight struct {
	Delta int // +1 or -1
}
