package memqueue

import (
	"errors"
	"fmt"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// Defaults and bounds of [QueueOptions].
const (
	DefaultLock          = 30 * time.Second
	DefaultMaxDeliveries = 10
	DefaultMaxBatch      = 100

	MinLock = time.Millisecond
	MaxLock = 12 * time.Hour
)

// Options configure a [Broker]. The zero value makes every queue on demand.
type Options struct {
	// Default is for the queues that Queues does not name.
	Default QueueOptions

	// Queues are queues with settings of their own, by name. They exist from
	// the start. New does not copy the map.
	Queues map[string]QueueOptions

	// DeclaredOnly makes Open fail with driver.NotFound for a queue that neither
	// Queues nor Declare has named, instead of making it.
	DeclaredOnly bool
}

// QueueOptions configure one queue. A negative value makes Open fail, except
// for the fields that give it a meaning.
type QueueOptions struct {
	// Lock is how long a delivery or a session is held before it must be
	// renewed, MinLock to MaxLock. 0 means 30 s.
	Lock time.Duration

	// MaxDeliveries is after how many deliveries a message is moved to the
	// dead-letter queue. 0 means 10, a negative value never.
	MaxDeliveries int

	// TTL is the longest that a message may be delivered after it was sent or
	// due, whatever its own TTL says. 0 means no limit.
	TTL time.Duration

	// Retention is how long the queue keeps a message; it ends like a TTL, and
	// is what the queue's Capabilities report. Dead letters have none. 0 means
	// for ever.
	Retention time.Duration

	// DeadLetterExpired moves messages whose time is over to the dead-letter
	// queue, with the reason "expired". Otherwise they are dropped.
	DeadLetterExpired bool

	// DedupWindow is for how long repeats of a DedupID are dropped. 0 means that
	// repeats are kept.
	DedupWindow time.Duration

	// SessionOnly makes the queue refuse messages without a SessionID, and
	// Receive outside of a session.
	SessionOnly bool

	// MaxMessages and MaxBytes bound what the queue and its dead-letter queue
	// hold together, bytes by Size; Send beyond fails with driver.Full.
	// Dead-lettering never does. 0 means no limit.
	MaxMessages int
	MaxBytes    int

	// MaxBody is the largest body in bytes. 0 means no limit.
	MaxBody int

	// MaxBatch and MaxBatchBytes bound one Send. A call beyond fails whole. 0
	// means 100 messages, and bytes without limit.
	MaxBatch      int
	MaxBatchBytes int

	// MaxAttributes is for the attributes of one message. 0 means no limit.
	MaxAttributes int
}

// resolve fills in defaults and checks the rest.
func (o QueueOptions) resolve() (QueueOptions, error) {
	err := driver.CheckSettings([]driver.Setting{
		{Name: "Lock", Value: int64(o.Lock)},
		{Name: "TTL", Value: int64(o.TTL)},
		{Name: "Retention", Value: int64(o.Retention)},
		{Name: "DedupWindow", Value: int64(o.DedupWindow)},
		{Name: "MaxMessages", Value: int64(o.MaxMessages)},
		{Name: "MaxBytes", Value: int64(o.MaxBytes)},
		{Name: "MaxBody", Value: int64(o.MaxBody)},
		{Name: "MaxBatch", Value: int64(o.MaxBatch)},
		{Name: "MaxBatchBytes", Value: int64(o.MaxBatchBytes)},
		{Name: "MaxAttributes", Value: int64(o.MaxAttributes)},
	})
	if err != nil {
		return o, fmt.Errorf("memqueue: QueueOptions.%w", err)
	}
	if o.Lock == 0 {
		o.Lock = DefaultLock
	}
	if o.MaxDeliveries == 0 {
		o.MaxDeliveries = DefaultMaxDeliveries
	}
	if o.MaxDeliveries < 0 {
		o.MaxDeliveries = 0 // never, as in Capabilities
	}
	if o.MaxBatch == 0 {
		o.MaxBatch = DefaultMaxBatch
	}
	if err := checkLock(o.Lock); err != nil {
		return o, err
	}
	return o, nil
}

func checkLock(d time.Duration) error {
	if d < MinLock || d > MaxLock {
		return fmt.Errorf("memqueue: a lock of %s: it must be %s to %s: %w", d, MinLock, MaxLock, errors.ErrUnsupported)
	}
	return nil
}

// capabilities are what a queue with these settings, resolved, can do.
func (o QueueOptions) capabilities() driver.Capabilities {
	c := driver.Capabilities{
		Sessions:         driver.Native,
		SessionState:     driver.Native,
		DeadLetter:       driver.Native,
		AbandonDelay:     driver.Native,
		Schedule:         driver.Native,
		Peek:             driver.Native,
		TTL:              driver.Native,
		AcceptByID:       true,
		SessionOnly:      o.SessionOnly,
		OrderedBatch:     true,
		BinaryBody:       true,
		Fenced:           true,
		ReleaseUncounted: true,
		MaxBody:          o.MaxBody,
		MaxBatch:         o.MaxBatch,
		MaxBatchBytes:    o.MaxBatchBytes,
		MaxAttributes:    o.MaxAttributes,
		MaxDeliveries:    o.MaxDeliveries,
		Lock:             o.Lock,
		MinLock:          MinLock,
		MaxLock:          MaxLock,
		Retention:        o.Retention,
	}
	if o.DedupWindow > 0 {
		c.Dedup = driver.Native
	}
	return c
}
