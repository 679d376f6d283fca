package drivertest

import (
	"context"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// Harness describes the broker under test.
type Harness struct {
	// Start makes the broker ready for one case. It is called at the start of
	// every case with that case's T, from the case's goroutine; it may return
	// the same server each time or a new one, and cleans up by T.Cleanup. It
	// fails the case by T.Fatalf.
	Start func(t T) *Instance

	// Only, where set, selects the cases to run by name. Nil runs all.
	Only func(name string) bool

	// AttackAttempts is how often [Attacks] performs each attack. 0 means 20.
	AttackAttempts int
}

// Instance is a running broker, as one case sees it. Its functions are called from
// one goroutine at a time.
type Instance struct {
	// Connect opens a connection that shares nothing with the others but the
	// broker, as another process would. The suite closes it.
	Connect func(ctx context.Context) (driver.Broker, error)

	// NewQueue makes an empty queue that nobody else uses, and returns its name.
	// It fails with an error that wraps errors.ErrUnsupported where the broker
	// has no queues like that; whether it may is then checked against the
	// Capabilities of a queue with the zero QueueSpec.
	NewQueue func(ctx context.Context, s QueueSpec) (string, error)

	// Attacker is a raw connection to the broker's storage. Nil: there is none,
	// and [Attacks] cannot run.
	Attacker Attacker

	// Wait lets d pass for the broker and for this process. Nil means a timer of
	// package time, which is right for real brokers and in a synctest bubble.
	Wait func(ctx context.Context, d time.Duration) error

	// Slack is how much later than promised the broker may do something that it
	// does by a timer: deliver what is due, notice a lock that ran out. It is
	// how long the suite keeps waiting before it calls a message lost. 0 means
	// 5 s.
	Slack time.Duration

	// Quiet is how long the suite watches a queue that must stay empty. 0 means
	// 100 ms; a remote broker may need more for its answer to mean something.
	Quiet time.Duration

	// Missing is a valid name of a queue that does not exist. Empty where the
	// broker makes every queue on demand.
	Missing string

	// InvalidNames are names that no queue of this broker can have, beside the
	// empty one, which is always tried.
	InvalidNames []string

	// Foreign tells, from its stack, a goroutine that the driver under test does
	// not own, though it may start while the driver runs: an emulator in the
	// test's process. Nil: there is none.
	Foreign func(stack string) bool
}

// QueueSpec is what a case needs of a queue.
type QueueSpec struct {
	// ShortLock asks for the shortest lock that a delivery survives for a few
	// calls to the broker; the cases that let locks run out use it. Otherwise
	// the lock is at least 30 s, so that no case runs into it.
	ShortLock bool

	// MaxDeliveries is after exactly how many deliveries the broker dead-letters
	// a message. 0 means 20 or more, or never.
	MaxDeliveries int

	// Sessions says that messages will have a SessionID, and only such.
	Sessions bool

	// Dedup says that the broker is to drop repeats of a DedupID, within a
	// window of at least a minute.
	Dedup bool
}

// Attacker is somebody who controls the broker. It works on what is stored, past
// the driver's code: it must decode and encode the stored form by itself, so that
// an error of the driver cannot hide an attack. Its methods are called while
// nobody receives from the queue.
type Attacker interface {
	// Read returns the waiting messages of a queue in the order of storage.
	Read(ctx context.Context, queue string) ([]driver.Message, error)

	// Rewrite replaces the waiting messages of a queue by what f makes of them,
	// in that order. They are stored as if just sent, whatever their NotBefore
	// and TTL, and past every check and de-duplication; their BrokerIDs may
	// change. Bodies are stored as they are, and marked as sealed or not by
	// Sealed. It fails where the broker cannot store one as it is.
	Rewrite(ctx context.Context, queue string, f func([]driver.Message) []driver.Message) error

	// DeadLetters returns the messages of the queue's dead-letter queue, and why
	// each lies there.
	DeadLetters(ctx context.Context, queue string) ([]driver.Message, []driver.DeadLetter, error)
}
