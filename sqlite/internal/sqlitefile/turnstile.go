package sqlitefile

import (
	"context"
	"math/rand/v2"
	"os"
	"time"
)

// turnstile makes the wait for the write lock fair between processes. SQLite's lock
// goes to whichever process asks first after it is free, and the one that has just
// released it asks first. So each process passes the turnstile, a lock on a file of its
// own (flock(2)), before it asks for the write lock, and holds it until it has that.
// At most one process at a time waits for the write lock, and the one that releases it
// comes behind. The kernel releases the turnstile of a process that dies.
type turnstile struct{ file *os.File } // nil means there is none here

// turnstileSuffix ends the name of the turnstile's file, beside the database.
const turnstileSuffix = "-turn"

// turnstilePause is how often a closed turnstile is tried: always the same, so that a
// process that has waited longer does not try more rarely than the others.
const turnstilePause = 500 * time.Microsecond

// openTurnstile opens the turnstile of a database. Without one the write lock is waited
// for all the same.
func openTurnstile(path string) turnstile {
	if !canLock {
		return turnstile{}
	}
	file, err := os.OpenFile(path+turnstileSuffix, os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // G304: beside the database
	if err != nil {
		return turnstile{}
	}
	return turnstile{file}
}

// close releases it.
func (t turnstile) close() {
	if t.file != nil {
		_ = t.file.Close() // nothing was written to it
	}
}

// pass calls ask, which takes the write lock, in this process's turn. It waits for the
// turn until ctx ends or the file closes, and no longer than LockTimeout: ask then finds
// out for itself that the write lock is taken.
func (f *File) pass(ctx context.Context, ask func() error) error {
	if f.turns.file == nil {
		return ask()
	}
	for began := time.Now(); !tryLock(f.turns.file); {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Since(began) >= f.config.LockTimeout {
			return ask()
		}
		if !f.pauseFor(ctx, turnstilePause/2+rand.N(turnstilePause)) { //nolint:gosec // G404: jitter, not a secret
			return ErrClosed
		}
	}
	defer unlock(f.turns.file)
	return ask()
}
