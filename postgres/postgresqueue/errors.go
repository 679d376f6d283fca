package postgresqueue

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/postgres/internal/database"
)

// Errors of [Open], for errors.Is.
var (
	// ErrForeign: the schema exists and is not a queue.
	ErrForeign = errors.New("the schema is not a queue: choose another name, or remove it if nothing needs it")
	// ErrNewer: a newer version of this package has written the schema.
	ErrNewer = errors.New("the schema was written by a newer version of this package: update this program")
	// ErrOlder: an older version of this package has written the schema, and
	// Options.MustExist forbids to migrate it.
	ErrOlder = errors.New("the schema was written by an older version of this package: open it once as its owner, without MustExist")
	// ErrAltered: the schema is not as this package made it: its functions, their rights
	// or owner, or something beside them that changes what they do.
	ErrAltered = errors.New("the schema was changed by other hands: undo what is named here, or move the messages to a new schema")
)

// states are those that the functions of the schema raise, and those that mean
// something of messages.
var states = map[string]driver.Error{
	"QR001": {Kind: driver.SessionLost},
	"QR002": {Kind: driver.NotFound, Err: errors.New("the queue was removed")},
	"QR003": {Kind: driver.Invalid, Err: errors.New("the queue's settings were changed and it does not take this message any more")},
	"42883": {Kind: driver.Corrupt, Err: errors.New("a function of the schema was removed")},
	"42704": {Kind: driver.Corrupt, Err: errors.New("a type of the schema was removed")},
}

// classify makes the error of a request a *driver.Error. Errors of ctx pass as they
// are.
func classify(ctx context.Context, err error) error {
	var already *driver.Error
	var p *pgconn.PgError
	if errors.As(err, &already) || ctx.Err() != nil || !errors.As(err, &p) {
		return database.Classify(ctx, err)
	}
	if e, ok := states[p.Code]; ok {
		return &e
	}
	switch p.Code[:min(2, len(p.Code))] {
	case "54":
		return driver.Errorf(driver.Invalid, "the message exceeds a limit of the server (SQLSTATE %s)", p.Code)
	case "22":
		return driver.Errorf(driver.Invalid, "the server cannot store these bytes (SQLSTATE %s)", p.Code)
	}
	return database.Classify(ctx, err)
}

// openError adds to an error of Open what it was about.
func openError(err error) error {
	return fmt.Errorf("postgresqueue: open: %w", err)
}
