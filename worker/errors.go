package worker

import (
	"context"
	"errors"
	"fmt"

	"github.com/queue-runtime/queue"
)

// Causes (context.Cause) of the end of a handler's context, beside queue.ErrLockLost and
// queue.ErrSessionLost.
var (
	ErrMaxProcessing = errors.New("maximum processing time is over")
	ErrDraining      = errors.New("the pool is draining")
)

// ErrPanic matches, under errors.Is, the error that OnError and the Observer get if a
// handler panicked or ended its goroutine. Its text holds the panic's value, which may be
// payload, and the stack.
var ErrPanic = errors.New("handler panicked")

// ErrHandlersRunning reports that Run returned although handlers were still running
// after their contexts had ended, or although the broker had not confirmed that it
// took back their messages.
var ErrHandlersRunning = errors.New("handlers did not end after their contexts had")

var errNilContext = fmt.Errorf("%w: nil context", queue.ErrInvalidOptions)

func invalidOption(format string, args ...any) error {
	return fmt.Errorf("%w: %s", queue.ErrInvalidOptions, fmt.Sprintf(format, args...))
}

// wrap is the one place where this package builds a *queue.Error. Context errors and
// errors that are wrapped already pass through, as in package queue.
func wrap(op, name string, err error) error {
	var done *queue.Error
	switch {
	case err == nil:
		return nil
	case err == context.Canceled, err == context.DeadlineExceeded: //nolint:errorlint // a driver's own time-out must not read as the caller's
		return err
	case errors.As(err, &done):
		return err
	}
	return &queue.Error{Op: op, Queue: name, Err: err}
}

// panicError is the error of a handler that panicked.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string   { return fmt.Sprintf("handler panicked: %v\n%s", e.value, e.stack) }
func (e *panicError) Is(t error) bool { return t == ErrPanic }

// goexit is the value of the panicError of a handler that called runtime.Goexit, as
// FailNow of a test does.
const goexit = "runtime.Goexit was called"
