package driver

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Broker is a connection to one broker. It owns what it opened: Close ends
// every queue and session that came from it.
type Broker interface {
	// Open returns the queue of that name. It fails with [NotFound] when the
	// broker has no such queue and creates none on demand, and with
	// [InvalidName] when no queue could have that name. o may be nil.
	Open(ctx context.Context, queue string, o *QueueOptions) (Queue, error)

	// Close releases everything. A second Close returns nil. Calls after Close
	// fail with [Closed].
	Close(ctx context.Context) error
}

// QueueOptions are what a receiver or sender asks of a queue. A driver that
// cannot honour a value that is set fails Open with an error that wraps
// errors.ErrUnsupported.
type QueueOptions struct {
	// Lock is how long a delivery is held before it must be renewed, within
	// Capabilities.MinLock and MaxLock. 0 means the queue's own.
	Lock time.Duration
}

// Source is what messages are received from: a queue or a session.
type Source interface {
	// Receive returns 1 to max deliveries as soon as there is at least one, or
	// (nil, nil) when none came within wait; wait 0 asks once without waiting.
	// When ctx ends first it returns ctx.Err() and no delivery: what the broker
	// had handed over by then is released, never left to run out its lock.
	Receive(ctx context.Context, max int, wait time.Duration) ([]*Delivery, error)

	// Settle settles each delivery on its own and returns one error (or nil)
	// per settlement, in order. A delivery whose lock is over gives [LockLost],
	// one that is already settled through this Source gives [Settled]; neither
	// touches a message that another receiver now holds. Dead-lettering stores the
	// message in the dead-letter queue, with reason and queue, before it removes it
	// from this one: a crash in between may leave two copies, never none.
	Settle(ctx context.Context, s []Settlement) []error

	// Renew extends each delivery's lock by a full lock time and sets
	// LockedUntil. It returns one result per delivery, in order.
	// The caller does not renew one delivery from two goroutines at once.
	Renew(ctx context.Context, d []*Delivery) []RenewResult
}

// Queue is one queue of a broker. Implementations embed [Unimplemented].
type Queue interface {
	Source

	// Capabilities does not change while the queue is open and does no I/O.
	Capabilities() Capabilities

	// Send stores each message on its own and returns one result per message,
	// in order. One that fails never fails the others, and messages of one
	// session that succeed stand in the order of the slice. With
	// Capabilities.OrderedBatch they are the first ones of their session. The caller keeps
	// within MaxBatch and MaxBatchBytes; Send may split but never merges.
	Send(ctx context.Context, m []*Message) []SendResult

	// AcceptSession takes the exclusive lock of a session and holds it until
	// the session's Close, loss, or the end of its lock. id "" means the next
	// session that is free and has a deliverable message; a message without a
	// SessionID is a session of its own, an [UnnamedSession]. It waits up to wait:
	// then [NoSession] for "", and [SessionHeld] for a session in other hands.
	// A named session need not have messages. A driver without AcceptByID
	// answers errors.ErrUnsupported to a name.
	AcceptSession(ctx context.Context, id string, wait time.Duration) (Session, error)

	// DeadLetters returns the queue's dead-letter queue. Its messages are
	// received, settled and peeked like any others; its Send, AcceptSession and
	// DeadLetters are errors.ErrUnsupported, as is settling by MoveToDeadLetter.
	// [NotFound]: the queue has none.
	DeadLetters(ctx context.Context) (Queue, error)

	// Peek returns up to max messages without locking or counting them, in the
	// order of storage, from cursor on ("" is the start), and the cursor that
	// follows them: "" at the end. Messages that are held or scheduled are
	// included.
	Peek(ctx context.Context, cursor string, max int) (d []*Delivery, next string, err error)

	// Stats returns the counts. It never scans the whole queue.
	Stats(ctx context.Context) (Stats, error)

	// Size returns how many bytes m counts against MaxBatchBytes, transport
	// encoding and metadata included.
	Size(m *Message) int

	// Close releases what this queue holds: waiting calls return [Closed], and
	// unsettled deliveries go back to the broker if it allows that. A second
	// Close returns nil.
	Close(ctx context.Context) error

	mustEmbedUnimplemented()
}

// Session is one session under this holder's exclusive lock. Its Receive
// returns only this session's messages, in order. Renew on its deliveries
// renews the session; they are held for as long as the session is.
type Session interface {
	Source

	// ID is the session's name, never empty.
	ID() string

	// LockedUntil is when the session's lock ends; zero if it has no end in
	// time.
	LockedUntil() time.Time

	// RenewSession extends the lock and returns its new end. [SessionLost] when
	// it is over.
	RenewSession(ctx context.Context) (time.Time, error)

	// Close releases every unsettled delivery at once and gives the session
	// up. A second Close returns nil.
	Close(ctx context.Context) error
}

// UnnamedSession is a Session of a queue that takes messages with and without a SessionID.
// Package queue holds the SessionID of what such a session delivers against this: a message
// of another session is refused.
type UnnamedSession interface {
	Session

	// Unnamed reports whether the session is that of one message without a SessionID.
	// ID is then a name that the broker gave it, and there is no state.
	Unnamed() bool
}

// StatefulSession is a session of a broker that keeps a small state with it
// (Capabilities.SessionState).
type StatefulSession interface {
	Session
	// State returns the bytes last set, nil when there are none.
	State(ctx context.Context) ([]byte, error)
	// SetState replaces them; nil clears.
	SetState(ctx context.Context, state []byte) error
}

// Unimplemented answers errors.ErrUnsupported to every method that a driver may
// lack. Embedding it lets Queue grow without breaking drivers.
type Unimplemented struct{}

func (Unimplemented) mustEmbedUnimplemented() {}

// The method is there to be embedded; linters that look at one package cannot
// see that it is.
var _ interface{ mustEmbedUnimplemented() } = Unimplemented{}

// AcceptSession answers errors.ErrUnsupported.
func (Unimplemented) AcceptSession(context.Context, string, time.Duration) (Session, error) {
	return nil, Unsupported("sessions")
}

// DeadLetters answers errors.ErrUnsupported.
func (Unimplemented) DeadLetters(context.Context) (Queue, error) {
	return nil, Unsupported("dead-letter queues")
}

// Peek answers errors.ErrUnsupported.
func (Unimplemented) Peek(context.Context, string, int) ([]*Delivery, string, error) {
	return nil, "", Unsupported("peek")
}

// Stats answers errors.ErrUnsupported.
func (Unimplemented) Stats(context.Context) (Stats, error) {
	return Stats{}, Unsupported("statistics")
}

// Unsupported returns the error for something that a broker cannot do; it wraps
// errors.ErrUnsupported and is not transient.
func Unsupported(what string) error {
	return fmt.Errorf("%s: %w", what, errors.ErrUnsupported)
}
