package postgresqueue

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/postgres/internal/database"
)

// Defaults and bounds of [QueueOptions] and [Options].
const (
	DefaultSchema        = "queue_runtime"
	DefaultLock          = 30 * time.Second
	DefaultMaxDeliveries = 10
	DefaultRetention     = 14 * 24 * time.Hour
	DefaultMaxBody       = 16 << 20
	DefaultTimeout       = 10 * time.Second
	DefaultMaxConns      = 8

	// DefaultPoll is how often a call that waits looks by itself: what is only a
	// precaution with notifications is the latency without.
	DefaultPoll       = 2 * time.Second
	DefaultPollPooled = 250 * time.Millisecond
	MinPoll           = 10 * time.Millisecond
	MaxPoll           = time.Minute

	// MinLock leaves room for a few round trips on a busy network.
	MinLock = 200 * time.Millisecond
	MaxLock = 12 * time.Hour

	// MaxBody bounds QueueOptions.MaxBody in bytes. PostgreSQL holds no value of
	// 1 GB, a batch is one message of its protocol, and memory on both sides has
	// to hold several.
	MaxBody = 64 << 20

	// MaxBatch is how many messages one Send takes.
	MaxBatch = 1000

	// maxDuration bounds durations, so that no sum of times overflows.
	maxDuration = 100 * 365 * 24 * time.Hour
)

// Options configure a [Broker]. The zero value makes the schema, and every queue, on
// demand.
type Options struct {
	// Schema is the name of the schema: 1 to 40 lower-case letters, digits and
	// underscores, not beginning with a digit or pg_. Empty means queue_runtime.
	Schema string

	// Pooled is for poolers that give a connection to a client for one transaction
	// only, such as PgBouncer with pool_mode = transaction: nothing is prepared and
	// nothing listens, and calls that wait look each Poll.
	Pooled bool

	// Poll is how often a call that waits looks for itself, MinPoll to MaxPoll. 0
	// means 2 s, or 250 ms if Pooled is set.
	Poll time.Duration

	// Timeout bounds each request to the server, connecting included. 0 means 10 s.
	Timeout time.Duration

	// MaxConns bounds the connections for requests; the one that listens comes on
	// top. 0 means 8.
	MaxConns int

	// MustExist makes [Open] fail if the schema does not exist or is older, and
	// Broker.Open fail with driver.NotFound for a queue that does not exist. Roles
	// that may not create anything need not set it if everything exists.
	MustExist bool

	// Default is what queues are made with that Broker.Open makes. Those that
	// exist keep what they have; see [Broker.Declare].
	Default QueueOptions
}

// QueueOptions are the settings of one queue. They lie in the database, so that all
// processes agree. A negative value is an error, unless it has a meaning.
type QueueOptions struct {
	// Lock is how long a delivery or a session is held before it must be renewed,
	// MinLock to MaxLock. 0 means 30 s.
	Lock time.Duration

	// MaxDeliveries is after how many deliveries a message becomes a dead letter
	// with the reason "max_deliveries". 0 means 10, a negative value never.
	MaxDeliveries int

	// Retention is how long the queue keeps a message that is not received, from
	// when it was sent or due; then it becomes a dead letter as if its TTL were
	// over. It is reported as Capabilities.Retention. 0 means 14 days.
	Retention time.Duration

	// DeadLetterRetention is how long a dead letter is kept; then it is removed
	// for good. 0 means that dead letters stay until a caller takes them out.
	DeadLetterRetention time.Duration

	// DedupWindow is for how long repeats of a DedupID are dropped. 0 means that
	// repeats are kept.
	DedupWindow time.Duration

	// SessionOnly makes the queue refuse messages without a SessionID, and Receive
	// outside of a session.
	SessionOnly bool

	// MaxMessages bounds what the queue and its dead-letter queue hold together;
	// Send beyond fails with driver.Full. Sends at the same time may exceed it by
	// their own messages. Dead-lettering never fails for it. 0 means no bound.
	MaxMessages int

	// MaxBody is the largest body in bytes, up to the constant MaxBody. 0 means
	// 16 MiB.
	MaxBody int
}

func (o *Options) resolve() (Options, error) {
	var r Options
	if o != nil {
		r = *o
	}
	if r.Schema == "" {
		r.Schema = DefaultSchema
	}
	// Short enough for the name of a channel to be made of it (63 bytes).
	if err := database.CheckSchema(r.Schema); err != nil {
		return r, fmt.Errorf("postgresqueue: %w", err)
	}
	err := driver.CheckSettings([]driver.Setting{
		{Name: "Poll", Value: int64(r.Poll)},
		{Name: "Timeout", Value: int64(r.Timeout)},
		{Name: "MaxConns", Value: int64(r.MaxConns)},
	})
	if err != nil {
		return r, fmt.Errorf("postgresqueue: Options.%w", err)
	}
	if r.Poll == 0 {
		r.Poll = DefaultPoll
		if r.Pooled {
			r.Poll = DefaultPollPooled
		}
	}
	if r.Poll < MinPoll || r.Poll > MaxPoll {
		return r, fmt.Errorf("postgresqueue: Options.Poll is %s: it must be %s to %s", r.Poll, MinPoll, MaxPoll)
	}
	if r.Timeout == 0 {
		r.Timeout = DefaultTimeout
	}
	if r.MaxConns == 0 {
		r.MaxConns = DefaultMaxConns
	}
	if r.MaxConns > math.MaxInt16 {
		return r, fmt.Errorf("postgresqueue: Options.MaxConns is %d: use at most %d", r.MaxConns, math.MaxInt16)
	}
	r.Default, err = r.Default.resolve()
	return r, err
}

// resolve fills in defaults and checks the rest.
func (o QueueOptions) resolve() (QueueOptions, error) {
	settings := []driver.Setting{
		{Name: "Lock", Value: int64(o.Lock)},
		{Name: "Retention", Value: int64(o.Retention)},
		{Name: "DeadLetterRetention", Value: int64(o.DeadLetterRetention)},
		{Name: "DedupWindow", Value: int64(o.DedupWindow)},
		{Name: "MaxMessages", Value: int64(o.MaxMessages)},
		{Name: "MaxBody", Value: int64(o.MaxBody)},
	}
	if err := driver.CheckSettings(settings); err != nil {
		return o, fmt.Errorf("postgresqueue: QueueOptions.%w", err)
	}
	if o.Lock == 0 {
		o.Lock = DefaultLock
	}
	if o.MaxDeliveries == 0 {
		o.MaxDeliveries = DefaultMaxDeliveries
	}
	o.MaxDeliveries = min(max(o.MaxDeliveries, 0), math.MaxInt32) // 0: never, as in Capabilities
	if o.Retention == 0 {
		o.Retention = DefaultRetention
	}
	o.Retention = min(max(o.Retention, time.Microsecond), maxDuration)
	o.DeadLetterRetention, o.DedupWindow = min(o.DeadLetterRetention, maxDuration), min(o.DedupWindow, maxDuration)
	if o.MaxBody == 0 {
		o.MaxBody = DefaultMaxBody
	}
	if o.MaxBody > MaxBody {
		return o, fmt.Errorf("postgresqueue: QueueOptions.MaxBody is %d: use at most %d", o.MaxBody, MaxBody)
	}
	return o, checkLock(o.Lock)
}

func checkLock(d time.Duration) error {
	if d < MinLock || d > MaxLock {
		return fmt.Errorf("postgresqueue: a lock of %s: it must be %s to %s: %w", d, MinLock, MaxLock, errors.ErrUnsupported)
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
		BinaryBody:       true,
		Fenced:           true,
		ReleaseUncounted: true,
		MaxBody:          o.MaxBody,
		MaxBatch:         MaxBatch,
		MaxBatchBytes:    max(32<<20, o.MaxBody+1<<20),
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
