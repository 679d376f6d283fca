package envelope

import "errors"

// Errors of this package, for errors.Is. Their texts never hold payload, key
// material or the bytes of a field.
var (
	// ErrInvalidEnvelope: the bytes are not an envelope of this version. The
	// error that wraps it names the field.
	ErrInvalidEnvelope = errors.New("invalid envelope")

	// ErrUnsupportedVersion: an envelope of a version that this package does not
	// know (qre1, Section 2.1). A newer sender may have made it.
	ErrUnsupportedVersion = errors.New("unsupported envelope version")

	// ErrAuthenticationFailed: the message was altered, moved, sealed under another
	// key, by another sender or for another use, or never sealed. It is opaque on
	// purpose and wraps nothing.
	ErrAuthenticationFailed = errors.New("message authentication failed")

	// ErrEncryptionFailed: nothing was sealed. It wraps the cause.
	ErrEncryptionFailed = errors.New("encryption failed")

	// ErrInvalidContext: the context cannot have been bound (qre1, Section 4.2):
	// no message ID, a bound attribute that is missing, or an attribute that
	// arrived twice. To a receiver, it is an authentication failure.
	ErrInvalidContext = errors.New("invalid context")
)

// errOverlap: an append would write over its own input.
var errOverlap = errors.New("envelope: dst overlaps the input: pass another buffer")
