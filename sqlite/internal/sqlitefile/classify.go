package sqlitefile

import (
	"context"
	"errors"
	"io/fs"
	"syscall"

	"github.com/queue-runtime/queue/driver"
	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

// Classify returns err as a driver.Error, or as it is when it is nil, a context
// error, or classified already. The text of SQLite's errors names columns and
// constraints of our own schema, never a value.
func Classify(err error) error {
	var done *driver.Error
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.As(err, &done):
		return err
	case errors.Is(err, fs.ErrPermission):
		return driver.Errorf(driver.Permission, "%w", err)
	case errors.Is(err, syscall.ENOSPC):
		return driver.Errorf(driver.Full, "%w", err)
	}
	return driver.Errorf(kindOf(code(err)), "%w", err)
}

// code is the extended result code of SQLite (rescode.html), 0 if err is not
// SQLite's.
func code(err error) int {
	var e *sqlite.Error
	if errors.As(err, &e) {
		return e.Code()
	}
	return lib.SQLITE_OK
}

func primary(code int) int { return code & 0xff }

// busy reports whether another connection's lock is in the way.
func busy(err error) bool {
	switch primary(code(err)) {
	case lib.SQLITE_BUSY, lib.SQLITE_LOCKED, lib.SQLITE_PROTOCOL:
		return true
	}
	return false
}

// interrupted reports whether a statement was ended because its context had ended.
func interrupted(err error) bool {
	return primary(code(err)) == lib.SQLITE_INTERRUPT || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

func kindOf(code int) driver.Kind {
	switch code {
	case lib.SQLITE_IOERR_SHMSIZE:
		return driver.Full // the index of the log could not grow: the disk is full
	case lib.SQLITE_IOERR_CORRUPTFS, lib.SQLITE_IOERR_DATA:
		return driver.Corrupt
	}
	switch primary(code) {
	case lib.SQLITE_BUSY, lib.SQLITE_LOCKED, lib.SQLITE_PROTOCOL, lib.SQLITE_IOERR, lib.SQLITE_NOMEM, lib.SQLITE_INTERRUPT:
		return driver.Unavailable
	case lib.SQLITE_FULL:
		return driver.Full
	case lib.SQLITE_READONLY, lib.SQLITE_PERM, lib.SQLITE_AUTH, lib.SQLITE_CANTOPEN:
		return driver.Permission
	case lib.SQLITE_TOOBIG:
		return driver.Invalid
	case lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB, lib.SQLITE_ERROR, lib.SQLITE_CONSTRAINT, lib.SQLITE_SCHEMA, lib.SQLITE_MISMATCH:
		// The statements are constants that fit the schema: if one does
		// not compile or breaks a constraint, the schema or the data has
		// been altered.
		return driver.Corrupt
	}
	return driver.Other
}
