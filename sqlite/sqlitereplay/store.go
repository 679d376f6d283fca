package sqlitereplay

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/sqlite/internal/sqlitefile"
)

// DefaultLockTimeout is the default of Options.LockTimeout.
const DefaultLockTimeout = 10 * time.Second

// Errors of [Open], for errors.Is.
var (
	// ErrQueue: the file is a queue's.
	ErrQueue = sqlitefile.ErrQueue
	// ErrForeign: the file is a database, but not a replay store, or its schema
	// was changed.
	ErrForeign = sqlitefile.ErrForeign
	// ErrNewer: a newer version of this package has written the file.
	ErrNewer = sqlitefile.ErrNewer
)

// Options configure a [Store]. A negative value is an error.
type Options struct {
	// Bounds says how much the store holds, and for how long. Each process has
	// bounds of its own, and counts what all have written. A record takes about
	// 80 bytes of the file, a recent message 25, an interval 8, a stream 150.
	Bounds replay.Bounds

	// Normal gives up durability at a power cut for speed (PRAGMA synchronous
	// = NORMAL): what was consumed in the last moments before one is
	// forgotten, and can be replayed while it is fresh.
	Normal bool

	// LockTimeout is how long a call waits for the locks of other processes on
	// the file before it fails. 0 means 10 s.
	LockTimeout time.Duration

	// MustExist makes Open fail for a file that does not exist.
	MustExist bool
}

// Store is an open replay store. It is safe for concurrent use and owns one
// goroutine, which ends with Close.
type Store struct {
	replay.Store
	engine *engine
}

// Open opens the file at path, and makes it with mode 0600 if it is not there. The
// folder must exist. o may be nil. Errors are driver errors, or ErrQueue,
// ErrForeign or ErrNewer.
func Open(ctx context.Context, path string, o *Options) (*Store, error) {
	var options Options
	if o != nil {
		options = *o
	}
	if options.LockTimeout < 0 {
		return nil, errors.New("sqlitereplay: Options.LockTimeout is negative")
	}
	if options.LockTimeout == 0 {
		options.LockTimeout = DefaultLockTimeout
	}
	bounds, err := options.Bounds.Resolved()
	if err != nil {
		return nil, fmt.Errorf("sqlitereplay: %w", err)
	}
	file, err := sqlitefile.Open(ctx, sqlitefile.Config{
		Path:          path,
		Create:        !options.MustExist,
		ApplicationID: sqlitefile.NonceID,
		Migrations:    migrations,
		Normal:        options.Normal,
		LockTimeout:   options.LockTimeout,
		Readers:       2,
	})
	switch {
	case errors.Is(err, ErrQueue):
		return nil, fmt.Errorf("sqlitereplay: open: a replay store must lie outside the broker's reach: use a file of its own: %w", err)
	case err != nil:
		return nil, fmt.Errorf("sqlitereplay: open: %w", err)
	}
	e := &engine{file: file, limits: bounds.Limits(), durable: !options.Normal, handle: newHandle()}
	if err := e.found(ctx); err != nil {
		return nil, fmt.Errorf("sqlitereplay: open: %w", errors.Join(err, file.Close(context.WithoutCancel(ctx))))
	}
	return &Store{replay.FromEngine(e), e}, nil
}

// found gives a new store its ID and its birth.
func (e *engine) found(ctx context.Context) error {
	uid := make([]byte, 16)
	_, _ = rand.Read(uid) // never fails: it ends the process instead
	return e.file.Write(ctx, func(c *sqlitefile.Conn) error {
		if _, err := c.Exec(insertStore, uid, e.now()); err != nil {
			return err
		}
		_, err := c.Exec(insertFirst)
		return err
	})
}

// Path returns the absolute path of the file, symbolic links resolved.
func (s *Store) Path() string { return s.engine.file.Path() }

// Close closes the file. Calls afterwards fail; a second Close returns nil.
func (s *Store) Close(ctx context.Context) error {
	s.engine.leave(ctx)
	return s.engine.file.Close(ctx)
}
