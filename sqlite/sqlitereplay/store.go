package sqlitereplay

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/sqlite/internal/sqlitefile"
)

// Defaults of [Options].
const (
	DefaultMaxEntries = 1 << 22
	DefaultPatience   = 10 * time.Second
)

// Errors of [Open], for errors.Is.
var (
	// ErrQueue: the file is a queue's.
	ErrQueue = sqlitefile.ErrQueue
	// ErrForeign: the file is a database, but not a replay store.
	ErrForeign = sqlitefile.ErrForeign
	// ErrNewer: a newer version of this package has written the file.
	ErrNewer = sqlitefile.ErrNewer
)

// Options configure a [Store]. A negative value is an error.
type Options struct {
	// MaxEntries is how many envelopes are remembered at once; one more is
	// replay.ErrFull. Each takes about 200 bytes of the file. Each process has
	// a bound of its own. 0 means 4,194,304.
	MaxEntries int

	// Normal gives up durability at a power cut for speed (PRAGMA synchronous
	// = NORMAL): what was consumed in the last moments before one is
	// forgotten, and can be replayed while it is fresh.
	Normal bool

	// Patience is how long a call waits for the locks of other processes on
	// the file before it fails. 0 means 10 s.
	Patience time.Duration

	// MustExist makes Open fail for a file that does not exist.
	MustExist bool
}

// Store is an open replay store. It is safe for concurrent use and owns one
// goroutine, which ends with Close.
type Store struct {
	file *sqlitefile.File
	max  int64
}

var _ replay.NonceStore = (*Store)(nil)

// Open opens the file at path, and makes it, with mode 0600, where it is not
// there. The folder must exist. o may be nil. Errors are driver errors, or
// ErrQueue, ErrForeign or ErrNewer.
func Open(ctx context.Context, path string, o *Options) (*Store, error) {
	var options Options
	if o != nil {
		options = *o
	}
	switch {
	case options.MaxEntries < 0:
		return nil, errors.New("sqlitereplay: Options.MaxEntries is negative")
	case options.Patience < 0:
		return nil, errors.New("sqlitereplay: Options.Patience is negative")
	}
	if options.MaxEntries == 0 {
		options.MaxEntries = DefaultMaxEntries
	}
	if options.Patience == 0 {
		options.Patience = DefaultPatience
	}
	file, err := sqlitefile.Open(ctx, sqlitefile.Config{
		Path:          path,
		Create:        !options.MustExist,
		ApplicationID: sqlitefile.NonceID,
		Migrations:    migrations,
		Normal:        options.Normal,
		Patience:      options.Patience,
		Readers:       1,
	})
	switch {
	case errors.Is(err, ErrQueue):
		return nil, fmt.Errorf("sqlitereplay: open: a replay store must lie outside the broker's reach: use a file of its own: %w", err)
	case err != nil:
		return nil, fmt.Errorf("sqlitereplay: open: %w", err)
	}
	return &Store{file: file, max: int64(options.MaxEntries)}, nil
}

// Path returns the absolute path of the file, symbolic links resolved.
func (s *Store) Path() string { return s.file.Path() }

// Close closes the file. Calls afterwards fail; a second Close returns nil.
func (s *Store) Close(ctx context.Context) error { return s.file.Close(ctx) }

// Retention implements replay.NonceStore: as long as the Request asks.
func (s *Store) Retention() time.Duration { return 0 }

// Len returns how many records the file has, those past their time included
// that nothing has removed yet.
func (s *Store) Len(ctx context.Context) (int, error) {
	var n int64
	err := s.file.Read(ctx, func(c *sqlitefile.Conn) (err error) {
		n, err = c.Int(countNonces)
		return err
	})
	return int(n), err
}

const (
	// pruneStep is how many records past their time a Begin removes at most.
	// It adds at most one, so that removing always catches up.
	pruneStep = 16
	// pruneFull is the same for a Begin that finds the store full.
	pruneFull = 4096
)

// Begin implements replay.NonceStore.
func (s *Store) Begin(ctx context.Context, r replay.Request) (replay.Claim, error) {
	if err := r.Validate(); err != nil {
		return replay.Claim{}, err
	}
	key, broker, owner := keyOf(r.Group, r.ID), digest(r.BrokerID), make([]byte, tokenSize)
	_, _ = rand.Read(owner) // fails never: it ends the process instead
	var claim replay.Claim
	var verdict error
	err := s.file.Write(ctx, func(c *sqlitefile.Conn) (err error) {
		claim, verdict, err = s.begin(c, &r, key, broker, owner)
		return err
	})
	if err == nil {
		err = verdict
	}
	return claim, err
}

func (s *Store) begin(c *sqlitefile.Conn, r *replay.Request, key, broker, owner []byte) (claim replay.Claim, verdict, err error) {
	now := time.Now().UnixNano()
	if _, err := c.Exec(prune, now, int64(pruneStep)); err != nil {
		return claim, nil, err
	}
	n, found, err := find(c, key, now)
	if err != nil {
		return claim, nil, err
	}
	claim.FirstSeen = time.Unix(0, n.firstSeen)
	switch {
	case !found && r.Now.After(r.FreshUntil):
		return replay.Claim{}, replay.ErrNotFresh, nil
	case !found:
		claim.FirstSeen = r.Now
		if verdict, err = s.room(c, now); verdict != nil || err != nil {
			return replay.Claim{}, verdict, err
		}
	case n.lease == consumed && broker != nil && string(n.broker) == string(broker):
		claim.Duplicate = true
		return claim, nil, nil
	case n.lease == consumed:
		return replay.Claim{}, replay.ErrReused, nil
	case n.lease > now:
		return replay.Claim{}, replay.ErrBusy, nil
	case r.Now.Sub(claim.FirstSeen) > r.RetryWindow:
		return replay.Claim{}, replay.ErrNotFresh, nil
	}
	n.lease = later(now, r.Lease)
	// Asked for by the receiver's clock, so counted from its now. A later claim
	// never shortens what an earlier one asked for.
	n.claimedUntil = max(n.claimedUntil, later(now, r.RetainClaimed.Sub(r.Now)))
	n.consumedUntil = max(n.consumedUntil, later(now, r.RetainConsumed.Sub(r.Now)))
	_, err = c.Exec(upsert, key, owner, broker, claim.FirstSeen.UnixNano(), n.lease, n.claimedUntil, n.consumedUntil,
		max(n.claimedUntil, n.lease))
	claim.Token = hex.EncodeToString(owner)
	return claim, nil, err
}

// room makes sure that one more record is allowed.
func (s *Store) room(c *sqlitefile.Conn, now int64) (verdict, err error) {
	entries, err := c.Int(countNonces)
	if err != nil || entries < s.max {
		return nil, err
	}
	removed, err := c.Exec(prune, now, int64(pruneFull))
	if err != nil || entries-removed < s.max {
		return nil, err
	}
	return fmt.Errorf("sqlitereplay: %w: %d entries", replay.ErrFull, s.max), nil
}

// Renew implements replay.NonceStore.
func (s *Store) Renew(ctx context.Context, group string, id replay.ID, token string, lease time.Duration) error {
	if lease <= 0 {
		return fmt.Errorf("sqlitereplay: a lease of %v: use one above zero", lease)
	}
	return s.settle(ctx, group, id, token, replay.ErrClaimLost, func(n *nonce, owns bool, now int64) error {
		if !owns || n.lease <= now { // consumed and released included
			return replay.ErrClaimLost
		}
		n.lease = later(now, lease)
		return nil
	})
}

// Consume implements replay.NonceStore.
func (s *Store) Consume(ctx context.Context, group string, id replay.ID, token string) error {
	return s.settle(ctx, group, id, token, replay.ErrClaimLost, func(n *nonce, owns bool, _ int64) error {
		if !owns {
			return replay.ErrClaimLost
		}
		n.lease = consumed
		return nil
	})
}

// Release implements replay.NonceStore.
func (s *Store) Release(ctx context.Context, group string, id replay.ID, token string) error {
	return s.settle(ctx, group, id, token, nil, func(n *nonce, owns bool, _ int64) error {
		switch {
		case n.lease == released:
			return nil
		case n.lease == consumed || !owns:
			return replay.ErrClaimLost
		}
		n.lease, n.owner = released, nil
		return nil
	})
}

// settle changes a record, or answers absent where there is none.
func (s *Store) settle(ctx context.Context, group string, id replay.ID, token string, absent error,
	change func(n *nonce, owns bool, now int64) error,
) error {
	switch {
	case len(group) < 1 || len(group) > replay.MaxGroup:
		return fmt.Errorf("sqlitereplay: a group of %d bytes: use 1 to %d", len(group), replay.MaxGroup)
	case len(id) < 1 || len(id) > replay.MaxID:
		return fmt.Errorf("sqlitereplay: an ID of %d bytes: use 1 to %d", len(id), replay.MaxID)
	}
	owner, err := hex.DecodeString(token)
	if err != nil || len(owner) != tokenSize {
		owner = nil // owns nothing
	}
	key := keyOf(group, id)
	var verdict error
	err = s.file.Write(ctx, func(c *sqlitefile.Conn) error {
		now := time.Now().UnixNano()
		n, found, err := find(c, key, now)
		if err != nil {
			return err
		}
		if !found {
			verdict = absent
			return nil
		}
		before := n
		if verdict = change(&n, owner != nil && string(n.owner) == string(owner), now); verdict != nil || n.lease == before.lease {
			return nil
		}
		_, err = c.Exec(update, key, blob(n.owner), n.lease, n.expiry())
		return err
	})
	if err == nil {
		err = verdict
	}
	return err
}

const tokenSize = 16

// keyOf names a record.
func keyOf(group string, id replay.ID) []byte {
	b := make([]byte, 0, 1+replay.MaxGroup+replay.MaxID)
	b = append(b, byte(len(group))) //nolint:gosec // G115: at most replay.MaxGroup
	b = append(b, group...)
	b = append(b, id...)
	sum := sha256.Sum256(b)
	return sum[:]
}

// digest bounds a BrokerID, nil for none. It is compared only between messages
// that carry the very same envelope, and whoever can choose a BrokerID can repeat
// one.
func digest(brokerID string) []byte {
	if brokerID == "" {
		return nil
	}
	sum := sha256.Sum256([]byte(brokerID))
	return sum[:16]
}

// later is t + d without wrapping; what would be in the past is t.
func later(t int64, d time.Duration) int64 {
	if int64(d) > math.MaxInt64-t {
		return math.MaxInt64
	}
	return t + max(0, int64(d))
}
