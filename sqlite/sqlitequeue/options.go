package sqlitequeue

import (
	"errors"
	"fmt"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// Defaults and bounds of [QueueOptions] and [Options].
const (
	DefaultLock          = 30 * time.Second
	DefaultMaxDeliveries = 10
	DefaultRetention     = 14 * 24 * time.Hour
	DefaultMaxBody       = 16 << 20
	DefaultLockTimeout   = 10 * time.Second

	// MinLock leaves room for a few commits on a slow disk.
	MinLock = 100 * time.Millisecond
	MaxLock = 12 * time.Hour

	// MaxBody bounds QueueOptions.MaxBody in bytes: SQLite holds no value of
	// 1 GB (sqlite.org/limits.html), and memory has to hold several.
	MaxBody = 256 << 20

	// MaxBatch is how many messages one Send takes.
	MaxBatch = 500
)

// Synchronous says what a confirmed send or settlement survives.
type Synchronous uint8

const (
	// Full waits for the disk at each commit (PRAGMA synchronous = FULL):
	// nothing confirmed is lost at a power cut, as far as the disk honours a
	// flush. Calls at the same time share the wait.
	Full Synchronous = iota

	// Normal does not wait (PRAGMA synchronous = NORMAL): nothing confirmed is
	// lost when the process dies, and the file stays whole in any case, but a
	// power cut or a crash of the machine takes back the commits of the last
	// moments: sends that were confirmed are gone, and what was completed is
	// delivered again.
	Normal
)

// Options configure a [Broker]. The zero value makes the file, and every queue,
// on demand.
type Options struct {
	// Synchronous is what a confirmed call survives; the zero value is Full.
	// Each process chooses for its own commits.
	Synchronous Synchronous

	// MustExist makes [Open] fail for a file that does not exist, and
	// Broker.Open fail with driver.NotFound for a queue that does not exist.
	MustExist bool

	// Default is what queues are made with that Broker.Open makes. Those that
	// exist keep what they have; see [Broker.Declare].
	Default QueueOptions

	// MaxBytes bounds the file: beyond, Send fails with driver.Full, while
	// what lies in the file can still be received, settled and dead-lettered.
	// The log beside it comes on top: 16 MiB as a rule, and more during a long
	// read. Each process has a bound of its own. 0 means no bound but the disk, of
	// which Send leaves 32 MiB, or an eighth if that is less; otherwise at least 1 MiB.
	MaxBytes int64

	// LockTimeout is how long a call waits for the locks of other processes on
	// the file before it fails with driver.Unavailable. 0 means 10 s.
	LockTimeout time.Duration
}

// QueueOptions are the settings of one queue. They lie in the file, so that all
// processes agree. A negative value is an error, except if it has a meaning.
type QueueOptions struct {
	// Lock is how long a delivery or a session is held before it must be
	// renewed, MinLock to MaxLock. 0 means 30 s.
	Lock time.Duration

	// MaxDeliveries is after how many deliveries a message is moved to the
	// dead-letter queue, with the reason "max_deliveries". 0 means 10, a
	// negative value never.
	MaxDeliveries int

	// Retention is how long the queue keeps a message that is not received,
	// from when it was sent or due; then it is moved to the dead-letter queue
	// as if its TTL were over. It is reported as Capabilities.Retention. 0
	// means 14 days.
	Retention time.Duration

	// DeadLetterRetention is how long a dead letter is kept; then it is removed for
	// good. 0 means that dead letters stay until they are redriven or purged.
	DeadLetterRetention time.Duration

	// DedupWindow is for how long repeats of a DedupID are dropped. 0 means
	// that repeats are kept.
	DedupWindow time.Duration

	// SessionOnly makes the queue refuse messages without a SessionID, and
	// Receive outside of a session.
	SessionOnly bool

	// MaxMessages bounds what the queue and its dead-letter queue hold
	// together; Send beyond fails with driver.Full. Dead-lettering never does.
	// 0 means no bound.
	MaxMessages int

	// MaxBody is the largest body in bytes, up to the constant MaxBody. 0
	// means 16 MiB.
	MaxBody int
}

func (o *Options) resolve() (Options, error) {
	var r Options
	if o != nil {
		r = *o
	}
	switch {
	case r.Synchronous > Normal:
		return r, errors.New("sqlitequeue: Options.Synchronous is neither Full nor Normal")
	case r.MaxBytes < 0 || r.MaxBytes > 0 && r.MaxBytes < 1<<20:
		return r, fmt.Errorf("sqlitequeue: Options.MaxBytes is %d: use at least 1 MiB, or 0 for no bound", r.MaxBytes)
	case r.LockTimeout < 0:
		return r, errors.New("sqlitequeue: Options.LockTimeout is negative")
	case r.LockTimeout == 0:
		r.LockTimeout = DefaultLockTimeout
	}
	var err error
	r.Default, err = r.Default.resolve()
	return r, err
}

// resolve fills in defaults and checks the rest.
func (o QueueOptions) resolve() (QueueOptions, error) {
	err := driver.CheckSettings([]driver.Setting{
		{Name: "Lock", Value: int64(o.Lock)},
		{Name: "Retention", Value: int64(o.Retention)},
		{Name: "DeadLetterRetention", Value: int64(o.DeadLetterRetention)},
		{Name: "DedupWindow", Value: int64(o.DedupWindow)},
		{Name: "MaxMessages", Value: int64(o.MaxMessages)},
		{Name: "MaxBody", Value: int64(o.MaxBody)},
	})
	if err != nil {
		return o, fmt.Errorf("sqlitequeue: QueueOptions.%w", err)
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
	if o.Retention == 0 {
		o.Retention = DefaultRetention
	}
	if o.MaxBody == 0 {
		o.MaxBody = DefaultMaxBody
	}
	if o.MaxBody > MaxBody {
		return o, fmt.Errorf("sqlitequeue: QueueOptions.MaxBody is %d: use at most %d", o.MaxBody, MaxBody)
	}
	return o, checkLock(o.Lock)
}

func checkLock(d time.Duration) error {
	if d < MinLock || d > MaxLock {
		return fmt.Errorf("sqlitequeue: a lock of %s: it must be %s to %s: %w", d, MinLock, MaxLock, errors.ErrUnsupported)
	}
	return nil
}

// capabilities are what a queue with these settings, resolved, can do.
func (o *QueueOptions) capabilities() driver.Capabilities {
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
		MaxBatch:         MaxBatch,
		MaxBatchBytes:    max(64<<20, 2*o.MaxBody),
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
