package keys

import (
	"context"
	"errors"
)

// ID names a key: 1 to 64 bytes of [A-Za-z0-9._:/-] (qre1, Section 2.2). It
// travels in the clear in every message.
type ID string

// Errors of this package. Providers wrap them with the key ID and the reason,
// never with key material.
var (
	// ErrNotFound means that the provider answered and has no key of that ID.
	ErrNotFound = errors.New("key not found")
	// ErrUnavailable means that the provider could not answer; it may later.
	ErrUnavailable = errors.New("key provider unavailable")
	// ErrInvalidKey means that the material or its ID is not usable as a key.
	ErrInvalidKey = errors.New("invalid key")
	// ErrDestroyed means that the key was destroyed, or removed from its Ring.
	ErrDestroyed = errors.New("key destroyed")
	// ErrSenderKey means that an operation needs the master key, and the key is a sender
	// key.
	ErrSenderKey = errors.New("sender key")
	// ErrExpired means that the key is past its expiry: it opens and no longer seals.
	ErrExpired = errors.New("key expired")
)

// Provider gives out keys. Implementations are safe for concurrent use and pass
// the suite in keys/keytest.
//
// One ID names one key for ever: a provider never answers an ID with other
// material than before. That key is a master key or, for a program that only
// sends, a sender key (Key.SenderID).
type Provider interface {
	// GetKey returns the key of that ID. It fails with ErrNotFound only when
	// it is sure that there is none, and with ErrUnavailable when it cannot
	// tell. The same *Key is returned while it is unchanged, so that what is
	// derived from it can be cached. The caller must not Destroy it.
	GetKey(ctx context.Context, id ID) (*Key, error)

	// CurrentKeyID returns the ID of the key to seal with.
	CurrentKeyID(ctx context.Context) (ID, error)

	// ValidKeyIDs returns every ID that GetKey answers, in no order. The
	// caller owns the slice.
	ValidKeyIDs(ctx context.Context) ([]ID, error)
}
