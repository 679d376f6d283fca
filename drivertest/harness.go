package drivertest

import (
	"context"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// Harness provides the broker under test.
type Harness struct {
	// Start returns a broker for one case. It is called at the start of every
	// case with the case's T, from the case's goroutine. It may return the same
	// server each time or a new one. It cleans up by T.Cleanup and fails the
	// case by T.Fatalf.
	Start func(t T) *Instance
}

// Instance is a running broker for one case. Its functions are called from one
// goroutine at a time.
type Instance struct {
	// Connect opens a connection that shares nothing with other connections but
	// the broker, as if it came from another process. The case closes it.
	Connect func(ctx context.Context) (driver.Broker, error)

	// NewQueue creates an empty queue for this case alone and returns its name.
	// Its error wraps errors.ErrUnsupported if the broker has no queues of that
	// kind. The case then checks that the Capabilities of a queue with the zero
	// QueueSpec do not claim them.
	NewQueue func(ctx context.Context, s QueueSpec) (string, error)

	// Attacker changes the broker's storage. Only package attacktest uses it.
	// Nil means that the storage cannot be reached.
	Attacker Attacker

	// Wait lets d pass for the broker and for this process. Nil means a timer of
	// package time, which is right for real brokers and in a synctest bubble.
	Wait func(ctx context.Context, d time.Duration) error

	// Slack is the longest delay with which the broker does something that it
	// does by a timer, such as delivering a scheduled message or noticing that a
	// lock ended. A case waits this long before it reports a message as lost.
	// 0 means 5 s.
	Slack time.Duration

	// Quiet is how long a case watches a queue that must stay empty. 0 means
	// 100 ms. A remote broker may need more, so that an answer arrives in time.
	Quiet time.Duration

	// Missing is a valid name of a queue that does not exist. Empty means that
	// the broker creates every queue on demand.
	Missing string

	// InvalidNames are names that no queue of this broker can have. The empty
	// name is always tried.
	InvalidNames []string

	// Foreign reports from its stack whether a goroutine belongs to something
	// other than the driver, such as an emulator in the same process. Nil means
	// that none does.
	Foreign func(stack string) bool
}

// QueueSpec describes the queue that a case needs.
type QueueSpec struct {
	// ShortLock asks for the shortest lock that a delivery survives for a few
	// calls to the broker. Cases that wait for the end of a lock use it. Without
	// it the lock is at least 30 s, so that no case reaches its end.
	ShortLock bool

	// MaxDeliveries is the number of deliveries after which the broker
	// dead-letters a message. 0 means 20 or more, or never.
	MaxDeliveries int

	// Sessions means that every message will have a SessionID.
	Sessions bool

	// Dedup asks the broker to drop messages that repeat a DedupID, within a
	// window of at least one minute.
	Dedup bool
}

// Attacker reads and changes what a broker stores, as its operator could. It must
// decode and encode the stored form without the driver's code, so that an error in
// the driver cannot hide an attack. Nothing receives from the queue while one of
// its methods runs.
type Attacker interface {
	// Read returns the waiting messages of a queue in the order of storage.
	Read(ctx context.Context, queue string) ([]driver.Message, error)

	// Rewrite replaces the waiting messages of a queue by the result of f, in
	// that order. They are stored as if just sent, whatever their NotBefore and
	// TTL, and without any check or de-duplication. Their BrokerIDs may change.
	// Bodies are stored as they are, and marked as sealed or not as the field
	// Sealed says. It fails if the broker cannot store a message as it is.
	Rewrite(ctx context.Context, queue string, f func([]driver.Message) []driver.Message) error

	// DeadLetters returns the messages of the queue's dead-letter queue, and the
	// cause of each at the same index.
	DeadLetters(ctx context.Context, queue string) ([]driver.Message, []driver.DeadLetter, error)
}
