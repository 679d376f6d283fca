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

	// ReleaseUncounted is true if a delivery that ends in Release does not count.
	// Otherwise the driver treats Release as Abandon, so that each costs a delivery.
	ReleaseUncounted bool
	// AcceptByID is true if AcceptSession takes a name, not only "".
	AcceptByID bool
	// SessionOnly is true if every message needs a SessionID, and Receive on the
	// queue itself fails with errors.ErrUnsupported.
	SessionOnly bool
	// SessionGaps is true if, between processes, a session is exclusive only while
	// one of its messages is held. In a gap, when all received messages of it are
	// settled or abandoned, a receiver in another process may take it over
	// unnoticed. That receiver still gets each message in order, and alone.
	SessionGaps bool
	// OrderedBatch is true if, after a message of a session that fails in a Send, the
	// driver stores no later one of that session in the same Send. These fail with
	// [ErrNotSent] or an error of their own. Otherwise package queue puts at most one
	// message of a session into a call.
	OrderedBatch bool
	// BinaryBody is true if bodies travel as bytes, not as text.
	BinaryBody bool
	// Fenced is true if the broker refuses to settle a delivery whose lock is over.
	// Otherwise the driver judges leases by its own clock.
	Fenced bool

	MaxBody       int // bytes of Message.Body, before encoding; 0 = no limit known
	MaxBatch      int // messages a Send, at least 1
	MaxBatchBytes int // sum of Size over a Send; 0 = no limit known
	MaxAttributes int // application attributes a message; 0 = no limit known
	MaxDeliveries int // deliveries before the broker dead-letters; 0 = never or unknown

	// ReceiveBatch is how many messages one Receive should ask for at most if several at once
	// bring more: a worker then makes them side by side, some with a context that has a
	// deadline. 0 = several at once gain nothing.
	ReceiveBatch int

	MaxDelay  time.Duration // longest NotBefore distance and abandon delay; 0 = no limit known
	Lock      time.Duration // the lock time in force; 0 = locks have no end in time
	MinLock   time.Duration // the least QueueOptions.Lock
	MaxLock   time.Duration // the greatest QueueOptions.Lock; 0 = no limit known
	Retention time.Duration // how long the broker keeps a message; 0 = unknown or for ever
}
