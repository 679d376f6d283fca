package driver

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Kind classifies an error of a broker.
type Kind uint8

// The kinds of error. Each has a sentinel that errors.Is matches.
const (
	Other       Kind = iota // none of the kinds below; not retried
	Unavailable             // the broker cannot be reached or does not answer; transient
	Throttled               // too many requests; transient, see Error.RetryAfter
	NotFound                // no such queue
	InvalidName             // no queue can have that name
	Permission              // credentials missing, wrong, or not allowed to do this
	LockLost                // the delivery's lock is over, or another receiver holds it
	SessionLost             // the session's lock is over
	SessionHeld             // another receiver holds the session
	NoSession               // no session came free within the wait
	Settled                 // the delivery is already settled
	TooLarge                // the message exceeds a limit; see TooLargeError
	Invalid                 // the broker cannot carry this message as it is
	Full                    // the queue or its storage is full; transient
	Corrupt                 // the broker's storage is damaged
	Closed                  // the queue or broker is closed
	NotSent                 // an earlier message of the same session failed in this Send
)

// Sentinels, one a [Kind], for errors.Is.
var (
	ErrUnavailable = errors.New("broker unavailable")
	ErrThrottled   = errors.New("broker throttled the request")
	ErrNotFound    = errors.New("queue not found")
	ErrInvalidName = errors.New("invalid queue name")
	ErrPermission  = errors.New("permission denied by the broker")
	ErrLockLost    = errors.New("lock lost")
	ErrSessionLost = errors.New("session lost")
	ErrSessionHeld = errors.New("session held by another receiver")
	ErrNoSession   = errors.New("no session available")
	ErrSettled     = errors.New("delivery already settled")
	ErrTooLarge    = errors.New("message too large")
	ErrInvalid     = errors.New("message cannot be carried by this broker")
	ErrFull        = errors.New("queue full")
	ErrCorrupt     = errors.New("broker storage corrupt")
	ErrClosed      = errors.New("closed")
	ErrNotSent     = errors.New("not sent: an earlier message of the same session failed")
)

var sentinels = [...]error{
	Unavailable: ErrUnavailable,
	Throttled:   ErrThrottled,
	NotFound:    ErrNotFound,
	InvalidName: ErrInvalidName,
	Permission:  ErrPermission,
	LockLost:    ErrLockLost,
	SessionLost: ErrSessionLost,
	SessionHeld: ErrSessionHeld,
	NoSession:   ErrNoSession,
	Settled:     ErrSettled,
	TooLarge:    ErrTooLarge,
	Invalid:     ErrInvalid,
	Full:        ErrFull,
	Corrupt:     ErrCorrupt,
	Closed:      ErrClosed,
	NotSent:     ErrNotSent,
}

// Error is the one error type of drivers. errors.Is matches the sentinel of its
// Kind and whatever Err matches.
type Error struct {
	Kind Kind
	// RetryAfter is how long the broker asked to wait; 0 if it did not say.
	RetryAfter time.Duration
	// Err is the cause, in words that are safe to log; nil if Kind says all.
	Err error
}

// Errorf returns an *Error of kind k with a formatted cause; %w wraps.
func Errorf(k Kind, format string, args ...any) error {
	return &Error{Kind: k, Err: fmt.Errorf(format, args...)}
}

func (e *Error) Error() string {
	s := e.sentinel()
	switch {
	case s == nil && e.Err == nil:
		return "broker error"
	case s == nil:
		return e.Err.Error()
	case e.Err == nil:
		return s.Error()
	}
	return s.Error() + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// Is matches the sentinel of e.Kind.
func (e *Error) Is(target error) bool {
	s := e.sentinel()
	return s != nil && target == s
}

// Transient reports whether the same call may succeed later.
func (e *Error) Transient() bool {
	return e.Kind == Unavailable || e.Kind == Throttled || e.Kind == Full
}

func (e *Error) sentinel() error {
	if int(e.Kind) < len(sentinels) {
		return sentinels[e.Kind]
	}
	return nil
}

// KindOf returns the Kind of the first *Error in err's tree, and Other if
// there is none. Context errors are Other: they are the caller's own doing.
func KindOf(err error) Kind {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return Other
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Other
}

// TooLargeError is the cause of an [Error] of kind [TooLarge].
type TooLargeError struct {
	What  string // "body", "message", "attributes", "batch"
	Size  int    // bytes, or entries if Unit says so
	Limit int
	Unit  string // empty means "bytes"
}

func (e *TooLargeError) Error() string {
	u := e.Unit
	if u == "" {
		u = "bytes"
	}
	return fmt.Sprintf("%s of %d %s exceeds the limit of %d", e.What, e.Size, u, e.Limit)
}

// NewTooLarge returns the [TooLarge] error for a body, message or batch.
func NewTooLarge(what string, size, limit int) error {
	return &Error{Kind: TooLarge, Err: &TooLargeError{What: what, Size: size, Limit: limit}}
}
