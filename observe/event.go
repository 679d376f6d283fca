package observe

import (
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/replay"
)

// Sealed reports that a sender sealed one message.
type Sealed struct {
	Took  time.Duration // includes the look-up of the key
	KeyID keys.ID
	Bytes int // of the plaintext
}

// Sent reports that the broker confirmed one message.
type Sent struct {
	Encrypted bool
	KeyID     keys.ID // empty unless Encrypted
	Bytes     int     // of the body as the broker stores it, before its own encoding
}

// Opened reports that a receiver tried to open one sealed message.
type Opened struct {
	Took  time.Duration // includes the look-up of the key
	KeyID keys.ID       // authentic only if Err is nil
	Bytes int           // of the plaintext; 0 if it did not open
	Err   error         // nil if it opened
}

// Received reports that one message is handed to the application.
type Received struct {
	Encrypted bool
	KeyID     keys.ID // empty unless Encrypted
	Bytes     int     // of the plaintext
}

// Rejected reports that one message was received and not delivered.
type Rejected struct {
	Reason      string             // the code of the finding
	Disposition driver.Disposition // what became of the message
	KeyID       keys.ID            // as the message says; not authenticated
	SettleErr   error              // not nil if settling failed: Disposition is then lost, and the message stays locked until the lock runs out
}

// Duplicate reports that a message came back that was handled before, because its
// completion was lost, and that it was completed now.
type Duplicate struct {
	KeyID     keys.ID
	SettleErr error // not nil if completing it failed
}

// Gap reports that a message was received before the message that its sender sent before
// it in the same session. That one is still on its way, or was dropped or held back.
type Gap struct {
	Sender string // who sealed it; authentic
}

// Accounted reports that a receiver looked at the streams of its group in the replay store. It may
// come just after the Closed of its Source, and is to be ignored then.
type Accounted struct {
	// Late and Missing count the messages of the group that are so now. No message is
	// in both. What arrives after all is in neither any more.
	Late, Missing uint64
	// Full is how much of the tightest bound of the store is used, 0 to 1.
	Full float64
	// Accounting is false if the receiver has NoAccounting: Late and Missing say
	// nothing then.
	Accounting bool
}

// Late reports that messages of one stream are late. Their sender knows that the broker has them,
// and no receiver of the group has seen them for ReceiverOptions.MissingAfter. Receivers
// that share a replay store report it once.
type Late struct {
	Sender string   // who sealed them; authentic
	Stream [16]byte // in which they were sealed
	Ranges []replay.Range
}

// Missing reports that messages of one stream are missing. They are late, and too old to be handled
// if they come. Receivers that share a replay store report it once.
type Missing struct {
	Sender string   // who sealed them; authentic
	Stream [16]byte // in which they were sealed
	Ranges []replay.Range
}

// DeadLettered reports that one message was moved to the dead-letter queue.
type DeadLettered struct {
	Reason string // a code of this library or the application's
}

// Flood reports that messages that cannot be read are dead-lettered faster than a few by chance:
// forgeries, or no envelopes at all. It is told at most once a minute for each queue of a
// Client.
type Flood struct {
	Reason string // the code of the message that raised it
	Count  int    // how many there were since the last Flood
}

// Redriven reports that one dead letter was sent back and removed.
type Redriven struct {
	Resealed bool // it was sealed anew
}

// CryptoError reports a fault in a message or in a session's state, or a failure to
// seal. Each Rejected comes with one CryptoError. The reasons plaintext_allowed and, of
// a sender, encryption_failed come without a Rejected.
type CryptoError struct {
	Reason string  // the code of the finding
	KeyID  keys.ID // not authenticated; empty if no key is concerned
}

// Handled reports that a handler returned and its message was settled.
type Handled struct {
	Took        time.Duration
	Disposition driver.Disposition
	Err         error // what the handler returned: its text may hold payload
}

// Retried reports that a handled message was given back, to be delivered again after Delay.
type Retried struct {
	Delay time.Duration
	// Planned is set if the handler asked for the delay and nothing failed. The
	// Result of such a Process has no Err.
	Planned bool
}

// Renewed reports that the lock of a message or session was renewed, or could not be.
type Renewed struct {
	Err error // nil if it was renewed
}

// Configured reports that a sender or receiver opened its queue.
type Configured struct {
	Role      Role
	Encrypted bool // it has encryption enabled
}

// Role says which part of the library a Source is.
type Role string

// Roles of a Source.
const (
	Sender     Role = "sender"
	Receiver   Role = "receiver"
	DeadLetter Role = "dead_letter" // a tool over the dead-letter queue
	Worker     Role = "worker"      // runs handlers; it is never Configured
)

// Closed reports that a sender, a receiver or a dead-letter tool was closed, alone or
// with its client, or that the Run of a worker returned. Each Configured, and each Run,
// is followed by at most one Closed with the same Source and Role. An Observer then
// forgets the states of the Source: of a Worker, the state of its breaker; of the other
// roles, whether encryption is enabled, the key in use, and what paused it.
type Closed struct {
	Role Role
}

// KeyUsed reports that a sender began to seal under another key.
type KeyUsed struct {
	KeyID   keys.ID
	Created time.Time // zero if unknown
	Expires time.Time // zero if it does not expire
}

// Paused reports that a receiver stopped fetching.
type Paused struct {
	Reason string // the code of what stopped it
}

// Resumed reports that a receiver fetches again.
type Resumed struct {
	Reason string // the code of what had stopped it
}

// Session reports that a session was accepted or ended.
type Session struct {
	State SessionState
}

// SessionState says what became of a session.
type SessionState string

// The states of a session. All but SessionAccepted are ends.
const (
	SessionAccepted SessionState = "accepted"
	SessionClosed   SessionState = "closed"  // by the receiver that held it
	SessionLost     SessionState = "lost"    // its lock ran out, or the broker took it away
	SessionBlocked  SessionState = "blocked" // released because one of its messages must wait
)

// Breaker reports that a circuit breaker changed its state.
type Breaker struct {
	State string // "closed", "open" or "half_open"
}

// InFlight reports that the number of running handlers changed.
type InFlight struct {
	Delta int // +1 or -1
}
