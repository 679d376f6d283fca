package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"
)

// Handler handles one message. What it returns settles the message: nil
// completes it, [RetryAfter] gives it back for a time, [Permanent] dead-letters
// it, any other error is up to the retry policy. The handler does not settle the
// delivery itself.
//
// ctx carries the trace of the message, and ends when going on is of no use:
// context.Cause is then ErrLockLost, ErrSessionLost, ErrMaxProcessing or
// ErrDraining. A handler that does not return then keeps its slot.
type Handler interface {
	Handle(ctx context.Context, d *Delivery) error
}

// HandlerFunc is a Handler.
type HandlerFunc func(ctx context.Context, d *Delivery) error

// Handle calls f.
func (f HandlerFunc) Handle(ctx context.Context, d *Delivery) error { return f(ctx, d) }

// Middleware wraps a Handler.
type Middleware func(Handler) Handler

// Why a handler's context ended, beside ErrLockLost and ErrSessionLost.
var (
	ErrMaxProcessing = errors.New("maximum processing time is over")
	ErrDraining      = errors.New("processor is draining")
)

// ErrPanic: the handler panicked.
var ErrPanic = errors.New("handler panicked")

type retryAfterError struct {
	delay time.Duration
	err   error
}

func (e *retryAfterError) Error() string { return fmt.Sprintf("retry after %s: %v", e.delay, e.err) }
func (e *retryAfterError) Unwrap() error { return e.err }

// RetryAfter returns the outcome that gives the message back for d, or as long
// as the broker can. err is for the log and may be nil. It counts towards
// MaxDeliveries like any other failure.
func RetryAfter(d time.Duration, err error) error {
	if err == nil {
		err = errors.New("not now")
	}
	return &retryAfterError{delay: max(d, 0), err: err}
}

type permanentError struct {
	code string
	err  error
}

func (e *permanentError) Error() string { return fmt.Sprintf("permanent (%s): %v", e.code, e.err) }
func (e *permanentError) Unwrap() error { return e.err }

// Permanent returns the outcome that dead-letters the message with that code, 1
// to 64 bytes of [a-z0-9_]; another becomes "permanent". err is for the log and
// may be nil; to store its text with the dead letter, mark it with [Safe].
func Permanent(code string, err error) error {
	if err == nil {
		err = errors.New("given up by the handler")
	}
	if (Reason{Code: code}).validate() != nil {
		code = "permanent"
	}
	return &permanentError{code: code, err: err}
}

type safeError struct{ error }

func (e safeError) Unwrap() error { return e.error }

// Safe marks the text of err as free of payload and secrets, so that it may be
// logged and stored in cleartext beside a dead letter.
func Safe(err error) error {
	if err == nil {
		return nil
	}
	return safeError{err}
}

// safeText returns what of err may leave the process: the text of what is marked
// safe, or nothing.
func safeText(err error) string {
	var s safeError
	if !errors.As(err, &s) {
		return ""
	}
	text := s.Error()
	for len(text) > 256 || !utf8.ValidString(text) {
		text = text[:min(len(text)-1, 256)]
	}
	return text
}

// Codec turns bodies into values and back. Implementations are safe for
// concurrent use; the text of their errors may hold payload, and is not logged.
type Codec interface {
	// ContentType is the media type of what Encode returns.
	ContentType() string
	// Encode returns v as a body. It fails for a type that it does not know.
	Encode(v any) ([]byte, error)
	// Decode stores what body says in v, which is a pointer. It must not keep
	// body, nor change it.
	Decode(body []byte, v any) error
}

// The codecs of this package.
var (
	JSON Codec = jsonCodec{} // encoding/json; "application/json"
	Raw  Codec = rawCodec{}  // []byte; "application/octet-stream"
	Text Codec = textCodec{} // string, valid UTF-8; "text/plain; charset=utf-8"
)

type jsonCodec struct{}

func (jsonCodec) ContentType() string             { return "application/json" }
func (jsonCodec) Encode(v any) ([]byte, error)    { return json.Marshal(v) }
func (jsonCodec) Decode(body []byte, v any) error { return json.Unmarshal(body, v) }

type rawCodec struct{}

func (rawCodec) ContentType() string { return "application/octet-stream" }

func (rawCodec) Encode(v any) ([]byte, error) {
	if b, ok := v.([]byte); ok {
		return b, nil
	}
	return nil, fmt.Errorf("the Raw codec encodes []byte, not %T", v)
}

func (rawCodec) Decode(body []byte, v any) error {
	p, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("the Raw codec decodes into []byte, not %T", v)
	}
	*p = body
	return nil
}

type textCodec struct{}

func (textCodec) ContentType() string { return "text/plain; charset=utf-8" }

func (textCodec) Encode(v any) ([]byte, error) {
	if s, ok := v.(string); ok {
		return []byte(s), nil
	}
	return nil, fmt.Errorf("the Text codec encodes string, not %T", v)
}

func (textCodec) Decode(body []byte, v any) error {
	p, ok := v.(*string)
	if !ok {
		return fmt.Errorf("the Text codec decodes into string, not %T", v)
	}
	if !utf8.Valid(body) {
		return errors.New("the body is not valid UTF-8")
	}
	*p = string(body)
	return nil
}

// Typed returns a Handler that decodes the body for f. A body that does not
// decode is dead-lettered with the code "undecodable".
func Typed[T any](c Codec, f func(ctx context.Context, v T, d *Delivery) error) Handler {
	return HandlerFunc(func(ctx context.Context, d *Delivery) error {
		var v T
		if err := c.Decode(d.Body, &v); err != nil {
			return Permanent("undecodable", err)
		}
		return f(ctx, v, d)
	})
}
