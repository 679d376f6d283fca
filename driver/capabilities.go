package driver

import "time"

// Support says whether and how a broker does something.
type Support uint8

// The degrees of support.
const (
	None     Support = iota // errors.ErrUnsupported
	Emulated                // by the driver, out of what the broker has, with the full promise of the interface
	Native                  // by the broker itself
	Copy                    // by sending a copy and removing the original: BrokerID, Count and place change
)

func (s Support) String() string {
	switch s {
	case None:
		return "none"
	case Emulated:
		return "emulated"
	case Native:
		return "native"
	case Copy:
		return "copy"
	}
	return "invalid"
}

// Capabilities say what one queue can do. They are known when it is opened.
type Capabilities struct {
	Sessions     Support // AcceptSession
	SessionState Support // sessions are StatefulSession
	DeadLetter   Support // MoveToDeadLetter
	AbandonDelay Support // Settlement.Delay
	Schedule     Support // Message.NotBefore
	Peek         Support
	TTL          Support // the broker stops delivering after Message.TTL
	Dedup        Support // repeats of a DedupID are dropped, within the broker's own window

	// ReleaseUncounted: a delivery that ends in Release does not count. Without it a
	// driver treats Release as Abandon, so that each costs a delivery.
	ReleaseUncounted bool
	// AcceptByID: AcceptSession takes a name, not only "".
	AcceptByID bool
	// SessionOnly: every message needs a SessionID, and Receive on the queue
	// itself is errors.ErrUnsupported.
	SessionOnly bool
	// SessionGaps: between processes a session is exclusive only while a message
	// of it is held. In a gap, when everything received of it is settled or
	// abandoned, another receiver may take it over unnoticed; whoever it is
	// still gets each message in order, and alone.
	SessionGaps bool
	// OrderedBatch: when a message of a session fails in a Send, the driver stores none of
	// the later ones of that session in the same Send; they fail, too, with [ErrNotSent]
	// or an error of their own. Without it package queue puts at most one message of a session into a call.
	OrderedBatch bool
	// BinaryBody: bodies travel as bytes, not as text.
	BinaryBody bool
	// Fenced: the broker refuses to settle a delivery whose lock is over. Where
	// it does not, the driver judges leases by its own clock.
	Fenced bool

	MaxBody       int // bytes of Message.Body, before encoding; 0 = no limit known
	MaxBatch      int // messages a Send, at least 1
	MaxBatchBytes int // sum of Size over a Send; 0 = no limit known
	MaxAttributes int // application attributes a message; 0 = no limit known
	MaxDeliveries int // deliveries before the broker dead-letters; 0 = never or unknown

	MaxDelay  time.Duration // longest NotBefore distance and abandon delay; 0 = no limit known
	Lock      time.Duration // the lock time in force; 0 = locks have no end in time
	MinLock   time.Duration
	MaxLock   time.Duration
	Retention time.Duration // how long the broker keeps a message; 0 = unknown or for ever
}
