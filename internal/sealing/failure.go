package sealing

import (
	"context"
	"errors"
	"fmt"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/keys"
)

// ErrKeyProvider: keys could not be had, and nothing is known about the message.
var ErrKeyProvider = errors.New("key provider failed")

// ErrSender: the message names a sender that the receiver does not accept.
var ErrSender = errors.New("sender is not accepted")

// ErrMarkerCollision: plaintext that begins like a sealed body cannot be sent.
var ErrMarkerCollision = errors.New("unencrypted body begins like a sealed one")

// Failure says what is wrong with a message or a call.
type Failure struct {
	Reason string  // a code of package driver; empty if the caller's context ended
	KeyID  keys.ID // the key that is concerned; as the message says, not authenticated
	Err    error   // the cause; never holds payload or key material
}

func (f *Failure) Error() string { return f.Err.Error() }

func (f *Failure) Unwrap() error { return f.Err }

// reasons are the codes of the errors that opening can meet. Order matters: an error
// of the key provider may wrap a more general one.
var reasons = []struct {
	err    error
	reason string
}{
	{envelope.ErrUnsupportedVersion, driver.ReasonUnsupportedVersion},
	{envelope.ErrInvalidEnvelope, driver.ReasonInvalidEnvelope},
	{ErrKeyProvider, driver.ReasonKeyProvider},
	{keys.ErrNotFound, driver.ReasonKeyNotFound},
	{envelope.ErrAuthenticationFailed, driver.ReasonAuthentication},
}

// fail classes an error once. What it does not know is no reason to condemn a message:
// it counts as an outage of the key provider.
func fail(ctx context.Context, id keys.ID, err error) *Failure {
	if ctx.Err() != nil {
		return &Failure{Err: ctx.Err()}
	}
	for _, r := range reasons {
		if errors.Is(err, r.err) {
			return &Failure{Reason: r.reason, KeyID: id, Err: err}
		}
	}
	return &Failure{Reason: driver.ReasonKeyProvider, KeyID: id, Err: fmt.Errorf("%w: %w", ErrKeyProvider, err)}
}

// keyNotFound is the failure of a key that does not exist.
func keyNotFound(id keys.ID) *Failure {
	return &Failure{Reason: driver.ReasonKeyNotFound, KeyID: id, Err: keys.ErrNotFound}
}

// sealFailed is the failure of sealing: nothing was sent.
func sealFailed(ctx context.Context, id keys.ID, err error) *Failure {
	if ctx.Err() != nil {
		return &Failure{Err: ctx.Err()}
	}
	if !errors.Is(err, envelope.ErrEncryptionFailed) {
		err = fmt.Errorf("%w: %w", envelope.ErrEncryptionFailed, err)
	}
	return &Failure{Reason: driver.ReasonEncryptionFailed, KeyID: id, Err: err}
}
