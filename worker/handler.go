package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
)

// Handler handles one message. What it returns settles the message:
//
//   - nil completes it;
//   - [Permanent] moves it to the dead-letter queue;
//   - [RetryAfter] gives it back for a time, and the delivery counts;
//   - [Later] gives it back for a time, and the delivery does not count;
//   - any other error gives it back for the time that the retry policy says.
//
// A message whose counted deliveries reach MaxDeliveries is moved to the dead-letter
// queue. The handler does not settle the delivery itself.
//
// ctx carries the trace of the message. It ends when going on is of no use, and
// context.Cause is then queue.ErrLockLost, queue.ErrSessionLost, [ErrMaxProcessing] or
// [ErrDraining]. A handler that does not return keeps its slot, and its message's lock.
type Handler interface {
	Handle(ctx context.Context, d *queue.Delivery) error
}

// HandlerFunc is a function as a [Handler].
type HandlerFunc func(ctx context.Context, d *queue.Delivery) error

// Handle calls f.
func (f HandlerFunc) Handle(ctx context.Context, d *queue.Delivery) error { return f(ctx, d) }

// Middleware wraps a Handler. It must return what the wrapped handler returned, or an
// error that wraps it, so that the message is settled as the handler meant.
type Middleware func(Handler) Handler

// retryError is a retry that the handler planned.
type retryError struct {
	err       error
	delay     time.Duration
	uncounted bool // Later
}

func (e *retryError) Error() string { return fmt.Sprintf("retry after %s: %v", e.delay, e.err) }
func (e *retryError) Unwrap() error { return e.err }

var errNotNow = errors.New("not now")

// RetryAfter returns the error that gives the message back for delay, or for as long as
// the broker can. Less than 0 counts as 0, which means at once. It counts towards
// MaxDeliveries as any other failure does. err says why, for OnError, and may be nil.
//
// A planned retry is neither an error span nor a warning in the log.
func RetryAfter(err error, delay time.Duration) error {
	if err == nil {
		err = errNotNow
	}
	return &retryError{err: err, delay: max(delay, 0)}
}

// Later is [RetryAfter] for a message that was not tried, because a service asked to
// wait, for example: the delivery does not count, and Later never moves a message to
// the dead-letter queue. On a broker without Capabilities.ReleaseUncounted the broker
// counts it all the same, up to a limit of its own. There the message waits for an hour at
// the least once half of its deliveries are gone.
//
// Without a replay store a message is dead-lettered as expired once it is older than
// MaxMessageAge, also if Later kept it waiting.
func Later(err error, delay time.Duration) error {
	if err == nil {
		err = errNotNow
	}
	return &retryError{err: err, delay: max(delay, 0), uncounted: true}
}

// permanentError is a message that the handler gave up.
type permanentError struct {
	err  error
	code string
}

func (e *permanentError) Error() string { return fmt.Sprintf("permanent (%s): %v", e.code, e.err) }
func (e *permanentError) Unwrap() error { return e.err }

// Permanent returns the error that moves the message to the dead-letter queue under a
// code of 1 to 64 bytes of [a-z0-9_]; any other code becomes "permanent". err says why,
// for OnError, and may be nil. Its text is stored with the dead letter sealed
// (queue.Reason.Detail), and in clear only if it is marked with [Public].
func Permanent(err error, code string) error {
	if err == nil {
		err = errors.New("given up by the handler")
	}
	if !validCode(code) {
		code = driver.ReasonPermanent
	}
	return &permanentError{err: err, code: code}
}

// validCode reports whether queue.Reason takes code.
func validCode(code string) bool {
	for _, c := range []byte(code) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return code != "" && len(code) <= 64
}

type publicError struct{ error }

func (e publicError) Unwrap() error { return e.error }

// Public marks the text of err as free of payload and secrets: it may be logged, and
// stored in cleartext beside a dead letter. The text of other errors reaches OnError
// and the Observer, and dead letters sealed. Public(nil) is nil.
func Public(err error) error {
	if err == nil {
		return nil
	}
	return publicError{err}
}

// maxPublicText bounds the public text in bytes: half of what queue.Reason takes, which
// leaves room for the times of the failures.
const maxPublicText = 256

// publicText returns the text of what err marks as public, cut to maxPublicText; "" if
// nothing is.
func publicText(err error) string {
	var p publicError
	if !errors.As(err, &p) {
		return ""
	}
	text := p.Error()
	for len(text) > maxPublicText || !utf8.ValidString(text) {
		text = text[:min(len(text)-1, maxPublicText)]
	}
	return text
}

// JSON returns a Handler that decodes the body with encoding/json for f. A body that
// does not decode is moved to the dead-letter queue with the code "undecodable".
func JSON[T any](f func(ctx context.Context, v T, d *queue.Delivery) error) Handler {
	return Typed(func(body []byte, v *T) error { return json.Unmarshal(body, v) }, f)
}

// Typed is [JSON] with another decoder. decode must be safe for concurrent use, and
// must neither keep nor change the body. The text of its errors may hold payload and is
// not logged.
func Typed[T any](decode func(body []byte, v *T) error, f func(ctx context.Context, v T, d *queue.Delivery) error) Handler {
	return HandlerFunc(func(ctx context.Context, d *queue.Delivery) error {
		var v T
		if err := decode(d.Body, &v); err != nil {
			return Permanent(err, driver.ReasonUndecodable)
		}
		return f(ctx, v, d)
	})
}
