package envelope

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"
)

// Constants of the wire format (qre1, Section 2). Lengths are in bytes.
const (
	// Marker begins every envelope of every version.
	Marker = "QRE1"
	// Version1 is the only version that this package seals and opens.
	Version1 = 1

	MaxKeyID       = 64  // longest key ID; the shortest is 1
	MaxOrigin      = 255 // longest origin; the shortest is 1
	MaxBound       = 64  // most bound attributes
	MaxName        = 255 // longest name of a bound attribute; the shortest is 1
	SaltSize       = 32
	CommitmentSize = 32
	NonceSize      = 12
	TagSize        = 16

	// MinOverhead is what an envelope adds to its plaintext, beside the key ID,
	// the origin, and 1 + length for each bound name.
	MinOverhead = fixedSize + 3 + SaltSize + CommitmentSize + NonceSize + TagSize

	// MaxTime is the last valid time, 9999-12-31T23:59:59.999Z, in Unix
	// milliseconds.
	MaxTime = 253402300799999
)

// fixedSize is everything before the length of the key ID.
const fixedSize = len(Marker) + 2 + 3*8

// Salt separates the keys of one salt epoch from those of every other (qre1,
// Section 3.2).
type Salt [SaltSize]byte

// Commitment fixes the key that a message was sealed under (qre1, Section 3.1).
type Commitment [CommitmentSize]byte

// Header is what an envelope says in the clear: every byte before the nonce.
// All of it is authenticated when the message is opened, and nothing of it
// before.
type Header struct {
	// EncryptedAt is when the message was sealed. It, NotBefore and ExpiresAt
	// are Unix milliseconds from 0 to MaxTime.
	EncryptedAt int64
	// NotBefore is when the message is due; 0 means at once.
	NotBefore int64
	// ExpiresAt is from when the message must not be delivered; 0 means never.
	ExpiresAt int64

	// KeyID names the key: 1 to MaxKeyID bytes of [A-Za-z0-9._:/-].
	KeyID string
	// Origin is the logical name of the queue that the sender sealed for: 1 to
	// MaxOrigin bytes of UTF-8, compared byte by byte.
	Origin string
	// Bound names the attributes whose values are authenticated: at most
	// MaxBound names of 1 to MaxName bytes, strictly ascending bytewise.
	Bound []string

	Salt       Salt
	Commitment Commitment
}

// EncryptedTime returns EncryptedAt in UTC.
func (h *Header) EncryptedTime() time.Time { return time.UnixMilli(h.EncryptedAt).UTC() }

// NotBeforeTime returns NotBefore in UTC; the zero Time means at once.
func (h *Header) NotBeforeTime() time.Time { return timeOf(h.NotBefore) }

// ExpiresTime returns ExpiresAt in UTC; the zero Time means never.
func (h *Header) ExpiresTime() time.Time { return timeOf(h.ExpiresAt) }

func timeOf(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// Validate returns nil when h can stand in an envelope, and otherwise an
// ErrInvalidEnvelope that names the field. A header from Parse is valid.
func (h *Header) Validate() error {
	if err := h.check(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalidEnvelope, err)
	}
	return nil
}

// AppendTo appends the encoding of h to dst. A header from Parse encodes to the
// bytes that it was parsed from. It fails as Validate does.
func (h *Header) AppendTo(dst []byte) ([]byte, error) {
	if err := h.Validate(); err != nil {
		return nil, err
	}
	return h.append(dst, h.KeyID, &h.Salt, &h.Commitment), nil
}

// SealedSize returns the length of the envelope that Seal makes of a plaintext of
// n bytes with the KeyID, Origin and Bound of h.
func SealedSize(h *Header, n int) int {
	return h.size(h.KeyID) + NonceSize + n + TagSize
}

// size is the length of the encoding.
func (h *Header) size(keyID string) int {
	n := fixedSize + 3 + len(keyID) + len(h.Origin) + SaltSize + CommitmentSize
	for _, name := range h.Bound {
		n += 1 + len(name)
	}
	return n
}

// timeFields are the names of the times, in their order.
var timeFields = [...]string{"encrypted_at", "not_before", "expires_at"}

// check returns why h is not valid, without a sentinel: the caller knows whether
// it seals or parses.
func (h *Header) check() error {
	if err := checkKeyID(h.KeyID); err != nil {
		return err
	}
	return h.checkRest()
}

// checkRest is check without the key ID, which a Sealer has checked long before.
func (h *Header) checkRest() error {
	for i, ms := range [...]int64{h.EncryptedAt, h.NotBefore, h.ExpiresAt} {
		if ms < 0 || ms > MaxTime {
			return fmt.Errorf("%s: %d is not from 0 to %d milliseconds", timeFields[i], ms, int64(MaxTime))
		}
	}
	if len(h.Origin) < 1 || len(h.Origin) > MaxOrigin {
		return fmt.Errorf("origin: %d bytes: use 1 to %d", len(h.Origin), MaxOrigin)
	}
	if !utf8.ValidString(h.Origin) {
		return errors.New("origin: not UTF-8")
	}
	return checkBound(h.Bound)
}

// checkKeyID holds id against qre1, Section 2.2.
func checkKeyID(id string) error {
	if len(id) < 1 || len(id) > MaxKeyID {
		return fmt.Errorf("key ID: %d bytes: use 1 to %d", len(id), MaxKeyID)
	}
	for i := range len(id) {
		switch c := id[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '.' || c == '_' || c == ':' || c == '/' || c == '-':
		default:
			return fmt.Errorf("key ID: byte %d: use [A-Za-z0-9._:/-]", i)
		}
	}
	return nil
}

// checkBound holds the names against qre1, Section 2.4.
func checkBound(names []string) error {
	if len(names) > MaxBound {
		return fmt.Errorf("bound attributes: %d: use at most %d", len(names), MaxBound)
	}
	for i, name := range names {
		if len(name) < 1 || len(name) > MaxName {
			return fmt.Errorf("bound attributes: name %d: %d bytes: use 1 to %d", i, len(name), MaxName)
		}
		if i > 0 && names[i-1] >= name {
			return fmt.Errorf("bound attributes: name %d: not above the one before", i)
		}
	}
	return nil
}

// append encodes h, which is valid, with the given key ID, salt and commitment
// (qre1, Section 2).
func (h *Header) append(dst []byte, keyID string, salt *Salt, commitment *Commitment) []byte {
	fixed := [fixedSize]byte{4: Version1, 5: 0} // no flag is defined
	copy(fixed[:], Marker)
	for i, ms := range [...]int64{h.EncryptedAt, h.NotBefore, h.ExpiresAt} {
		binary.BigEndian.PutUint64(fixed[len(Marker)+2+8*i:], uint64(ms)) //nolint:gosec // G115: checked to be 0 or more
	}
	dst = append(dst, fixed[:]...)
	dst = appendShort(dst, keyID)
	dst = appendShort(dst, h.Origin)
	dst = append(dst, byte(len(h.Bound))) //nolint:gosec // G115: at most MaxBound
	for _, name := range h.Bound {
		dst = appendShort(dst, name)
	}
	dst = append(dst, salt[:]...)
	return append(dst, commitment[:]...)
}

// appendShort appends s, of at most 255 bytes, after its length in one byte.
func appendShort(dst []byte, s string) []byte {
	dst = append(dst, byte(len(s))) //nolint:gosec // G115: the caller checked
	return append(dst, s...)
}
