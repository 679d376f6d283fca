package queue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/internal/sealing"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/replay"
)

// Reasons to reject a received message. DESIGN.md, "What becomes of a message", says what
// happens to it in each case.
var (
	ErrUnencryptedMessage   = errors.New("message is not encrypted and the policy rejects plaintext")
	ErrInvalidEnvelope      = envelope.ErrInvalidEnvelope
	ErrUnsupportedVersion   = envelope.ErrUnsupportedVersion
	ErrKeyNotFound          = keys.ErrNotFound // as a *KeyNotFoundError
	ErrKeyProvider          = sealing.ErrKeyProvider
	ErrKeyChanged           = errors.New("key changed under its ID") // wraps beside ErrKeyProvider
	ErrAuthenticationFailed = envelope.ErrAuthenticationFailed
	ErrSenderNotAccepted    = sealing.ErrSender
	ErrMessageExpired       = errors.New("message expired") // as an *ExpiredError
	ErrMaxDeliveries        = errors.New("message was delivered more often than MaxDeliveries")
	ErrMessageFromFuture    = errors.New("message is not due yet or its sender's clock is ahead")
	ErrNonceReused          = replay.ErrReused
	ErrNonceBusy            = replay.ErrBusy
	ErrNonceCollision       = replay.ErrCollision // two messages under one identity
	ErrReplayQuota          = replay.ErrQuota     // the sender has used up its room in the store
	ErrReplayStoreLost      = errors.New("replay store lost its memory")
	ErrReplayStore          = errors.New("replay store failed")
)

// Errors of calls.
var (
	ErrEncryptionFailed = envelope.ErrEncryptionFailed // nothing was sent
	ErrKeyExpired       = keys.ErrExpired
	ErrInvalidMessage   = driver.ErrInvalid
	ErrMessageTooLarge  = driver.ErrTooLarge // as a *driver.TooLargeError
	ErrMarkerCollision  = sealing.ErrMarkerCollision
	ErrInvalidOptions   = errors.New("invalid options")

	ErrNoMessage       = errors.New("no message") // there was none to return, which is no failure
	ErrReceivingPaused = errors.New("receiving paused: messages do not open under any key of this receiver")
	ErrNotSent         = driver.ErrNotSent
	ErrUnconfirmed     = errors.New("the broker did not answer and may hold the message")

	ErrLockLost    = driver.ErrLockLost
	ErrSettled     = driver.ErrSettled
	ErrSessionLost = driver.ErrSessionLost
	ErrSessionHeld = driver.ErrSessionHeld
	ErrNoSession   = driver.ErrNoSession

	ErrQueueNotFound    = driver.ErrNotFound
	ErrInvalidQueueName = driver.ErrInvalidName
	ErrQueueFull        = driver.ErrFull
	ErrThrottled        = driver.ErrThrottled
	ErrUnavailable      = driver.ErrUnavailable
	ErrPermission       = driver.ErrPermission
	ErrClosed           = driver.ErrClosed
)

// Error is the error of an operation on a queue. errors.Is and errors.As see
// through it to the cause.
type Error struct {
	Op    string // "send", "receive", "complete", ...
	Queue string // empty if no queue is concerned

	// Transient says that the same call may succeed later.
	Transient bool
	// RetryAfter is how long the broker asked to wait; 0 if it did not say.
	RetryAfter time.Duration

	Err error // the cause; never nil in an Error of this package
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("queue: ")
	b.WriteString(e.Op)
	if e.Queue != "" {
		fmt.Fprintf(&b, " %q", e.Queue)
	}
	b.WriteString(": ")
	b.WriteString(e.Err.Error())
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// NewError returns err as an *Error, for packages that are built on this one, and nil for
// nil. It returns context errors, and errors that are an *Error already, as they are. No
// other function builds an Error.
func NewError(op, queue string, err error) error { return wrap(op, queue, err) }

func wrap(op, queue string, err error) error {
	if err == nil {
		return nil
	}
	// Identity, not errors.Is: a driver's time-out that happens to wrap a
	// deadline of its own must not read as the caller's.
	if err == context.Canceled || err == context.DeadlineExceeded { //nolint:errorlint // see above
		return err
	}
	var done *Error
	if errors.As(err, &done) {
		return err
	}
	e := &Error{Op: op, Queue: queue, Err: err}
	var d *driver.Error
	if errors.As(err, &d) {
		e.Transient, e.RetryAfter = d.Transient(), d.RetryAfter
	}
	// These may wrap a *driver.Error, and pass whatever its kind is.
	if errors.Is(err, ErrKeyProvider) || errors.Is(err, ErrReplayStore) || errors.Is(err, ErrReceivingPaused) {
		e.Transient = true
	}
	return e
}

// KeyNotFoundError names the key that a message needs and this receiver lacks.
// errors.Is matches [ErrKeyNotFound].
type KeyNotFoundError struct {
	KeyID keys.ID // as the message says; not authenticated

	// Err says more if it is known: ErrSenderKey of package keys if the receiver has a
	// sender key under that ID, and not the master key. Nil otherwise.
	Err error
}

func (e *KeyNotFoundError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("key %q not found: %v", e.KeyID, e.Err)
	}
	return fmt.Sprintf("key %q not found", e.KeyID)
}

// Is matches ErrKeyNotFound, and what Err wraps.
func (e *KeyNotFoundError) Is(target error) bool {
	return target == ErrKeyNotFound || errors.Is(e.Err, target)
}

// ExpiredError says why a message is too old. errors.Is matches
// [ErrMessageExpired].
type ExpiredError struct {
	EncryptedAt time.Time
	ExpiresAt   time.Time     // zero means the message has no expiry of its own
	MaxAge      time.Duration // the receiver's limit that was passed; 0 when it was ExpiresAt
}

func (e *ExpiredError) Error() string {
	if e.MaxAge == 0 {
		return fmt.Sprintf("message expired: sealed at %s to live until %s",
			e.EncryptedAt.UTC().Format(time.RFC3339), e.ExpiresAt.UTC().Format(time.RFC3339))
	}
	return fmt.Sprintf("message expired: sealed at %s, older than CryptoConfig.MaxMessageAge of %s: raise it above the longest backlog",
		e.EncryptedAt.UTC().Format(time.RFC3339), e.MaxAge)
}

// Is matches ErrMessageExpired.
func (e *ExpiredError) Is(target error) bool { return target == ErrMessageExpired }

// RejectedError describes a message that was received and not delivered. Only
// Queue, BrokerID, Count and what this library decided can be trusted; the other fields
// are as the broker gave them.
type RejectedError struct {
	Queue       string
	BrokerID    string
	MessageID   string // not authenticated
	SessionID   string // not authenticated
	KeyID       keys.ID
	Count       int
	Reason      string             // the code of Err, such as "authentication_failed"
	Disposition driver.Disposition // what was to become of it; see SettleErr
	Delay       time.Duration      // of a message that was given back, until it is redelivered
	Err         error              // why
	SettleErr   error              // set when the disposition itself failed; the message comes again when its lock runs out

	renewsSession bool // the lock of its session is renewed for all of Delay, and not left to run out
}

func (e *RejectedError) Error() string {
	s := fmt.Sprintf("queue: receive %q: message %q rejected (%s): %v", e.Queue, e.MessageID, e.Disposition, e.Err)
	if e.SettleErr != nil {
		s += "; settling it failed: " + e.SettleErr.Error()
	}
	return s
}

func (e *RejectedError) Unwrap() error { return e.Err }

// ReasonOf returns the code by which metrics and dead letters name a finding of the
// receive pipeline, and "" for any other error.
func ReasonOf(err error) string {
	for _, f := range findings {
		if errors.Is(err, f.err) {
			return f.code
		}
	}
	return ""
}

// findings are the rows of the receive pipeline's table. Order matters: an
// error of the key provider may wrap a more general one.
var findings = []struct {
	err         error
	code        string
	description string
}{
	{ErrUnencryptedMessage, driver.ReasonPlaintext, "the message is not encrypted and the receiver rejects plaintext"},
	{ErrUnsupportedVersion, driver.ReasonUnsupportedVersion, "the envelope has a version that this receiver does not know"},
	{ErrInvalidEnvelope, driver.ReasonInvalidEnvelope, "the body has the envelope's marker and does not parse"},
	{ErrKeyProvider, driver.ReasonKeyProvider, "the key provider could not answer"},
	{ErrKeyNotFound, driver.ReasonKeyNotFound, "the receiver does not have the key"},
	{ErrReplayStore, driver.ReasonReplayStore, "the replay store could not answer"},
	{ErrAuthenticationFailed, driver.ReasonAuthentication, "the message was altered, moved, or sealed under another key"},
	{ErrSenderNotAccepted, driver.ReasonSender, "the receiver does not accept the sender that the message names"},
	{ErrMessageExpired, driver.ReasonMessageExpired, "the message is older than the receiver accepts"},
	{ErrMessageFromFuture, driver.ReasonMessageFromFuture, "the message is not due yet"},
	{ErrNonceCollision, driver.ReasonCollision, "two messages were sealed under one identity: a copied process, or a stolen sender key"},
	{ErrReplayQuota, driver.ReasonQuota, "the sender has used up its room in the replay store"},
	{ErrReplayStoreLost, driver.ReasonReplayStore, "the replay store lost its memory"},
	{ErrNonceReused, driver.ReasonNonceReused, "the message was handled before: a replay"},
	{ErrNonceBusy, driver.ReasonNonceBusy, "another receiver holds this message"},
	{ErrMaxDeliveries, driver.ReasonMaxDeliveries, "the message was delivered as often as it may be, and no outcome put an end to it"},
}

func describe(code string) string {
	for _, f := range findings {
		if f.code == code {
			return f.description
		}
	}
	return ""
}

var errNilContext = fmt.Errorf("%w: nil context", ErrInvalidOptions)

func checkContext(ctx context.Context) error {
	if ctx == nil {
		return errNilContext
	}
	return ctx.Err()
}

func invalidOption(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalidOptions, fmt.Sprintf(format, args...))
}
