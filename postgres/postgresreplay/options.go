package postgresreplay

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/queue-runtime/queue/postgres/internal/database"
	"github.com/queue-runtime/queue/replay"
)

// Defaults of [Options].
const (
	DefaultSchema   = "queue_replay"
	DefaultTimeout  = 10 * time.Second
	DefaultMaxConns = 4
)

// Options configure a [Store]. The zero value makes the schema if it is not there.
type Options struct {
	// Schema is the name of the schema: 1 to 40 lower-case letters, digits and
	// underscores, not beginning with a digit or pg_. Empty means queue_replay.
	Schema string

	// Bounds says how much the store holds, and for how long. Each process has
	// bounds of its own, and counts what all have written.
	Bounds replay.Bounds

	// Pooled is for poolers that give a connection to a client for one transaction
	// only, such as PgBouncer with pool_mode = transaction: nothing is prepared.
	Pooled bool

	// Timeout bounds each call, connecting included. 0 means 10 s.
	Timeout time.Duration

	// MaxConns bounds the connections. Calls of one group wait for each other, so
	// that more than two for each group of the process are of no use. 0 means 4.
	MaxConns int

	// MustExist makes [Open] fail if the schema does not exist or is older. Roles
	// that may not create anything need not set it if everything exists.
	MustExist bool

	// TrustDatabaseOperators allows a broker in the same database. Its operators,
	// and all that get hold of the rights of its owner, can then remove the memory
	// of what was handled and deliver it again. Without it, queue.New refuses such
	// a broker.
	TrustDatabaseOperators bool
}

// resolve checks the options and fills in defaults.
func (o Options) resolve() (Options, error) {
	if o.Schema == "" {
		o.Schema = DefaultSchema
	}
	if err := database.CheckSchema(o.Schema); err != nil {
		return o, err
	}
	if o.Timeout < 0 || o.MaxConns < 0 || o.MaxConns > math.MaxInt16 {
		return o, fmt.Errorf("Options.Timeout is %s and MaxConns %d: use values above zero and at most %d connections, or 0 for the default",
			o.Timeout, o.MaxConns, math.MaxInt16)
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.MaxConns == 0 {
		o.MaxConns = DefaultMaxConns
	}
	var err error
	o.Bounds, err = o.Bounds.Resolved()
	return o, err
}

// Errors of [Open], for errors.Is.
var (
	// ErrForeign: the schema exists and is not a replay store.
	ErrForeign = errors.New("the schema is not a replay store: choose another name, or remove it if nothing needs it")
	// ErrNewer: a newer version of this package has written the schema.
	ErrNewer = errors.New("the schema was written by a newer version of this package: update this program")
	// ErrOlder: an older version of this package has written the schema, and
	// Options.MustExist forbids to migrate it.
	ErrOlder = errors.New("the schema was written by an older version of this package: open it once as its owner, without MustExist")
	// ErrAltered: the schema is not what this package made. A trigger, for instance,
	// could remove what was consumed.
	ErrAltered = errors.New("the schema was changed by other hands: find out what for, then restore it or move to a new schema")
)
