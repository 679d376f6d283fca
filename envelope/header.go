package envelope

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
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
	MaxSender      = 64  // longest sender ID; the shortest is empty
	MaxOrigin      = 255 // longest origin; the shortest is 1
	MaxVoid        = 8   // most void ranges
	MaxBound       = 64  // most bound attributes
	MaxName        = 255 // longest name of a bound attribute; the shortest is 1
	StreamSize     = 16
	SaltSize       = 32
	CommitmentSize = 32
	NonceSize      = 12
	TagSize        = 16

	// MinOverhead is what an envelope adds to its plaintext, beside the key ID,
	// the sender ID, the origin, 16 for each void range and 1 + length for each
	// bound name.
	MinOverhead = fixedSize + 5 + SaltSize + CommitmentSize + NonceSize + TagSize

	// MaxTime is the last valid time, 9999-12-31T23:59:59.999Z, in Unix
	// milliseconds.
	MaxTime = 253402300799999

	// MaxSequence is the last number of a stream: the largest integer that every
	// JSON parser keeps (RFC 8259, Section 6).
	MaxSequence = 1<<53 - 1
)

// Offsets of the fields of fixed size (qre1, Section 2).
const (
	flagsAt       = len(Marker) + 1
	encryptedAtAt = flagsAt + 1
	notBeforeAt   = encryptedAtAt + 8
	expiresAtAt   = notBeforeAt + 8
	streamAt      = expiresAtAt + 8
	sequenceAt    = streamAt + StreamSize
	settledAt     = sequenceAt + 8
	previousAt    = settledAt + 8
	resealedAtAt  = previousAt + 8

	// fixedSize is everything before the number of void ranges.
	fixedSize = resealedAtAt + 8
)

// flagPadded says that the plaintext is padded (qre1, Section 5.2).
const flagPadded = 1

// Salt separates the keys of one salt epoch from the keys of every other (qre1,
// Section 3.3).
type Salt [SaltSize]byte

// Commitment fixes the key that a message was sealed under (qre1, Section 3.2).
type Commitment [CommitmentSize]byte

// Range is a run of sequences, both ends included.
type Range struct{ First, Last uint64 }

// Header is what an envelope says in the clear: every byte before the nonce.
// All of it is authenticated when the message is opened, and nothing of it
// before.
//
// Sender, Stream and Sequence name a message for ever (qre1, Section 6.3). A
// message of a queue has a Sequence from 1. A header of direct use (SealApp) has
// Stream, Sequence, Settled, Previous and ResealedAt zero and no Void.
type Header struct {
	// Padded says that length and zeros surround the plaintext under the
	// encryption. Open takes them off. Sealing ignores it: it is set by the
	// Padding that was asked for.
	Padded bool

	// EncryptedAt is when the message was sealed first. It, NotBefore, ExpiresAt
	// and ResealedAt are Unix milliseconds from 0 to MaxTime.
	EncryptedAt int64
	// NotBefore is when the message is due; 0 means at once.
	NotBefore int64
	// ExpiresAt is from when the message must not be delivered; 0 means never.
	// It may lie before NotBefore: such a message is never delivered.
	ExpiresAt int64

	// Stream names a series of messages of one sender: 48 bits of Unix
	// milliseconds at which it was opened, and 80 random bits.
	Stream [StreamSize]byte
	// Sequence numbers the message in its stream, from 1 to MaxSequence.
	Sequence uint64
	// Settled says that the broker confirmed every message of the stream up to
	// this one, unless Void lists it. It is below Sequence; 0 says nothing.
	Settled uint64
	// Previous is the message before this one in its session and stream. It is
	// below Sequence; 0 means that none is known.
	Previous uint64
	// ResealedAt is when an operator sealed the message anew; 0 means never.
	ResealedAt int64
	// Void lists sequences that were never sent: at most MaxVoid ranges,
	// ascending and disjoint, none beyond Settled.
	Void []Range

	// KeyID names the key: 1 to MaxKeyID bytes of [A-Za-z0-9._:/-].
	KeyID string
	// Sender names who sealed: 0 to MaxSender bytes of the same alphabet. Empty
	// means a holder of the master key.
	Sender string
	// Origin is the logical name of the queue that the sender sealed for: 1 to
	// MaxOrigin bytes of UTF-8, compared byte by byte.
	Origin string
	// Bound names the attributes whose values are authenticated: at most
	// MaxBound names of 1 to MaxName bytes, strictly ascending bytewise.
	Bound []string

	Salt       Salt
	Commitment Commitment
}

// StreamOpened returns when the stream was opened by its sender's clock, in Unix
// milliseconds: the first 48 bits of Stream.
func (h *Header) StreamOpened() int64 {
	return int64(binary.BigEndian.Uint64(h.Stream[:8]) >> 16) //nolint:gosec // G115: 48 bits
}

// SealedAt returns the later of EncryptedAt and NotBefore, in Unix milliseconds.
// Resealing keeps it.
func (h *Header) SealedAt() int64 { return max(h.EncryptedAt, h.NotBefore) }

// Reseal returns the header under which the same message is sealed anew at that
// time, in Unix milliseconds (qre1, Section 5.3): its identity, EncryptedAt and
// NotBefore stay, so that it is handled once however often it is resealed.
//
// ExpiresAt is kept and may be changed. KeyID, Salt and Commitment are those of
// the Sealer that seals it, whose sender must be h.Sender. The slices are shared.
func (h *Header) Reseal(at int64) Header {
	r := *h
	r.ResealedAt = at
	r.KeyID, r.Salt, r.Commitment = "", Salt{}, Commitment{}
	return r
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
	ids := encodeIDs(h.KeyID, h.Sender)
	return h.append(dst, h.size(len(ids)), &sealed{h.Padded, ids, &h.Salt, &h.Commitment}), nil
}

// SealedSize returns the length of the envelope that Seal makes of a plaintext of
// n bytes with the KeyID, Sender, Origin, Void and Bound of h. With padding, n is
// Padding.Size of the plaintext.
func SealedSize(h *Header, n int) int {
	return h.size(2+len(h.KeyID)+len(h.Sender)) + NonceSize + n + TagSize
}

// size is the length of the encoding, the IDs included.
func (h *Header) size(ids int) int {
	n := fixedSize + 1 + 16*len(h.Void) + ids + 1 + len(h.Origin) + 1 + SaltSize + CommitmentSize
	for _, name := range h.Bound {
		n += 1 + len(name)
	}
	return n
}

// check returns why h is not valid, without a sentinel: the caller knows whether
// it seals or parses.
func (h *Header) check() error {
	if err := checkID("key ID", h.KeyID, 1); err != nil {
		return err
	}
	if err := checkID("sender ID", h.Sender, 0); err != nil {
		return err
	}
	return h.checkRest()
}

// checkRest is check without the IDs, which a Sealer has checked long before.
func (h *Header) checkRest() error {
	if !validTime(h.EncryptedAt) || !validTime(h.NotBefore) || !validTime(h.ExpiresAt) || !validTime(h.ResealedAt) {
		return h.timeError()
	}
	if err := h.checkSequence(); err != nil {
		return err
	}
	if len(h.Origin) < 1 || len(h.Origin) > MaxOrigin {
		return fmt.Errorf("origin: %d bytes: use 1 to %d", len(h.Origin), MaxOrigin)
	}
	if !utf8.ValidString(h.Origin) {
		return errors.New("origin: not UTF-8")
	}
	return checkBound(h.Bound)
}

func validTime(ms int64) bool { return uint64(ms) <= MaxTime } //nolint:gosec // G115: what is negative becomes too large

// timeError names the time that is not valid.
func (h *Header) timeError() error {
	for _, t := range [...]struct {
		field string
		ms    int64
	}{
		{"encrypted_at", h.EncryptedAt},
		{"not_before", h.NotBefore},
		{"expires_at", h.ExpiresAt},
		{"resealed_at", h.ResealedAt},
	} {
		if !validTime(t.ms) {
			return fmt.Errorf("%s: %d is not from 0 to %d milliseconds", t.field, t.ms, int64(MaxTime))
		}
	}
	return nil
}

// direct reports whether h, which is valid, is a header of direct use (qre1,
// Section 4.3).
func (h *Header) direct() bool { return h.Sequence == 0 }

// checkSequence holds stream, sequence and what follows from them against qre1,
// Sections 2.6 and 2.7.
func (h *Header) checkSequence() error {
	switch {
	case h.Sequence == 0:
		return h.checkDirect()
	case h.Sequence > MaxSequence:
		return fmt.Errorf("sequence: %d: at most %d", h.Sequence, uint64(MaxSequence))
	case h.Settled >= h.Sequence:
		return fmt.Errorf("settled: %d is not below the sequence, %d", h.Settled, h.Sequence)
	case h.Previous >= h.Sequence:
		return fmt.Errorf("previous: %d is not below the sequence, %d", h.Previous, h.Sequence)
	case len(h.Void) > MaxVoid:
		return fmt.Errorf("void ranges: %d: at most %d", len(h.Void), MaxVoid)
	}
	last := uint64(0)
	for i, r := range h.Void {
		if r.First <= last || r.Last < r.First {
			return fmt.Errorf("void ranges: range %d: %d to %d after %d: ranges ascend and are disjoint", i, r.First, r.Last, last)
		}
		last = r.Last
	}
	if last > h.Settled {
		return fmt.Errorf("void ranges: up to %d, beyond settled, %d", last, h.Settled)
	}
	return nil
}

// checkDirect refuses a header without sequence that is not one of direct use.
func (h *Header) checkDirect() error {
	var field string
	switch {
	case h.Stream != [StreamSize]byte{}:
		field = "stream"
	case h.Settled != 0:
		field = "settled"
	case h.Previous != 0:
		field = "previous"
	case h.ResealedAt != 0:
		field = "resealed_at"
	case len(h.Void) > 0:
		field = "void ranges"
	default:
		return nil
	}
	return fmt.Errorf("%s: set, and the sequence is 0", field)
}

// checkID holds the key ID or sender ID against qre1, Sections 2.2 and 2.3.
func checkID(field, id string, least int) error {
	if len(id) < least || len(id) > MaxKeyID {
		return fmt.Errorf("%s: %d bytes: use %d to %d", field, len(id), least, MaxKeyID)
	}
	for i := range len(id) {
		if !inID[id[i]] {
			return fmt.Errorf("%s: byte %d: use [A-Za-z0-9._:/-]", field, i)
		}
	}
	return nil
}

// inID says which bytes a key ID or sender ID has. A table is quicker than comparisons.
var inID = func() (in [256]bool) {
	for _, c := range []byte("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:/-") {
		in[c] = true
	}
	return in
}()

// checkBound holds the names against qre1, Section 2.8.
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

// append encodes h, which is valid, with what is the Sealer's, in n bytes (qre1,
// Section 2).
func (h *Header) append(dst []byte, n int, own *sealed) []byte {
	dst = slices.Grow(dst, n)
	b := dst[len(dst) : len(dst)+n]
	h.encode((*[fixedSize]byte)(b), own.padded)
	b = b[fixedSize:]
	b[0], b = byte(len(h.Void)), b[1:] //nolint:gosec // G115: at most MaxVoid
	for _, r := range h.Void {
		binary.BigEndian.PutUint64(b, r.First)
		binary.BigEndian.PutUint64(b[8:], r.Last)
		b = b[16:]
	}
	b = putShort(b[copy(b, own.ids):], h.Origin)
	b[0], b = byte(len(h.Bound)), b[1:] //nolint:gosec // G115: at most MaxBound
	for _, name := range h.Bound {
		b = putShort(b, name)
	}
	*(*Salt)(b) = *own.salt
	*(*Commitment)(b[SaltSize:]) = *own.commitment
	return dst[:len(dst)+n]
}

// encode writes the fields of fixed size.
func (h *Header) encode(b *[fixedSize]byte, padded bool) {
	copy(b[:], Marker)
	b[len(Marker)], b[flagsAt] = Version1, 0
	if padded {
		b[flagsAt] = flagPadded
	}
	binary.BigEndian.PutUint64(b[encryptedAtAt:], uint64(h.EncryptedAt)) //nolint:gosec // G115: checked to be 0 or more, as the times below
	binary.BigEndian.PutUint64(b[notBeforeAt:], uint64(h.NotBefore))     //nolint:gosec // G115
	binary.BigEndian.PutUint64(b[expiresAtAt:], uint64(h.ExpiresAt))     //nolint:gosec // G115
	copy(b[streamAt:], h.Stream[:])
	binary.BigEndian.PutUint64(b[sequenceAt:], h.Sequence)
	binary.BigEndian.PutUint64(b[settledAt:], h.Settled)
	binary.BigEndian.PutUint64(b[previousAt:], h.Previous)
	binary.BigEndian.PutUint64(b[resealedAtAt:], uint64(h.ResealedAt)) //nolint:gosec // G115
}

// putShort writes s, of at most 255 bytes, after its length in one byte, and
// returns what is behind it.
func putShort(b []byte, s string) []byte {
	b[0] = byte(len(s)) //nolint:gosec // G115: the caller checked
	return b[1+copy(b[1:], s):]
}

// sealed is what of a header is not the caller's but the Sealer's.
type sealed struct {
	padded     bool
	ids        string // by encodeIDs
	salt       *Salt
	commitment *Commitment
}

// encodeIDs returns the key ID and the sender ID as they stand in a header.
func encodeIDs(keyID, sender string) string {
	return string(appendShort(appendShort(nil, keyID), sender))
}

// appendShort appends s, of at most 255 bytes, after its length in one byte.
func appendShort(dst []byte, s string) []byte {
	dst = append(dst, byte(len(s))) //nolint:gosec // G115: the caller checked
	return append(dst, s...)
}
