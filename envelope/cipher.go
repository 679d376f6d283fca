package envelope

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"reflect"
	"sync"
)

// Deriver is a key as this package needs it: a master key K, or the sender key K_s
// of one sender (qre1, Section 3).
//
// Derive returns 64 bytes of HKDF-Expand (RFC 5869, Section 2.3) with SHA-256, the
// sender key of that sender ID as the pseudorandom key, and info. A master key
// derives the sender key first, with 32 bytes of HKDF-Expand, also for the empty
// ID (qre1, Section 3.1):
//
//	K_s = HKDF-Expand(K, "QRE1/sender/v1\x00" || byte(len(sender)) || sender, 32)
//
// A sender key fails for every other sender ID than its own. That the ID is an
// argument makes it impossible to use the one kind for the other: what is derived
// for a sender is the same whichever of the two derives it, or there is an error.
//
// Derive must be safe for concurrent use, must not keep info, and must always
// return the same for the same arguments. It may wait: a hardware module that
// computes HMACs is a Deriver.
//
// What was derived is cached by the identity of the Deriver, so it should be a
// pointer, the same one for the same key; a Deriver that cannot be compared with
// == works, uncached. A Deriver that also has a method
//
//	Err() error
//
// is asked before a cached cipher is used, and its error ends the operation: so a
// destroyed key stops sealing and opening at once. Err must be fast.
type Deriver interface {
	Derive(sender string, info []byte) ([64]byte, error)
}

// usable tells why a Deriver is not used any more: nil as long as it is.
type usable interface{ Err() error }

// usableOf returns d if it has an error to tell.
func usableOf(d Deriver) usable {
	if k, ok := d.(usable); ok {
		return k
	}
	return alwaysUsable{}
}

type alwaysUsable struct{}

func (alwaysUsable) Err() error { return nil }

// infoLabel begins the info of every message key (qre1, Section 3.2).
const infoLabel = "QRE1/A256GCM-HKDF-SHA256-COMMIT/v1\x00"

// The domains of additional data (qre1, Section 4.1). A message sealed in one
// never opens in the other.
const (
	domainQueue = "QRE1-AAD-v1\x00"
	domainApp   = "QRE1-APP-v1\x00"
)

// maxPlaintext bounds a plaintext in bytes: GCM's own limit, 2^32-2 blocks (NIST
// SP 800-38D, Section 5.2.1.1).
const maxPlaintext = 1<<36 - 32

// checkSize refuses what GCM cannot seal.
func checkSize(what string, n int64) error {
	if n > maxPlaintext {
		return sizeError(what, n)
	}
	return nil
}

func sizeError(what string, n int64) error {
	return fmt.Errorf("%s: %d bytes: at most %d", what, n, int64(maxPlaintext))
}

// derived is what a master key gives for one salt.
type derived struct {
	aead       cipher.AEAD // safe for concurrent use
	commitment Commitment
	usable     usable // asked before each use
}

// derive returns the cipher and the commitment of d for that sender and salt. Its
// errors are d's.
func derive(d Deriver, keyID, sender string, salt *Salt) (k *derived, err error) {
	info := make([]byte, 0, len(infoLabel)+1+MaxKeyID+SaltSize)
	info = append(info, infoLabel...)
	info = appendShort(info, keyID)
	info = append(info, salt[:]...)
	k = &derived{usable: usableOf(d)}
	confine(func() {
		var okm [64]byte
		if okm, err = d.Derive(sender, info); err != nil {
			err = fmt.Errorf("envelope: derive: %w", err)
			return
		}
		k.aead, err = newAEAD(okm[:32])
		copy(k.commitment[:], okm[32:])
		clear(okm[:])
	})
	if err != nil {
		return nil, err
	}
	return k, nil
}

// newAEAD returns AES-256-GCM that draws its own nonces and writes nonce,
// ciphertext, tag. It is the only way to use GCM that FIPS 140-3 approves without
// a counter kept across restarts (SP 800-38D, Section 8.2.2), and the caller can
// never choose a nonce.
func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("envelope: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("envelope: %w", err)
	}
	return aead, nil
}

// scratch holds additional data while it is used, so that neither direction
// allocates for it.
type scratch struct{ b []byte }

// maxScratch bounds what the pool keeps of one buffer, in bytes.
const maxScratch = 64 << 10

var scratches = sync.Pool{New: func() any { return &scratch{b: make([]byte, 0, 1024)} }}

func getScratch() *scratch {
	s, _ := scratches.Get().(*scratch) // holds nothing else
	return s
}

func (s *scratch) put() {
	if cap(s.b) <= maxScratch {
		scratches.Put(s)
	}
}

// begin fills s with what stands before a header of that many bytes in additional
// data (qre1, Section 4.1).
func (s *scratch) begin(domain string, header int) {
	s.b = append(s.b[:0], domain...)
	s.b = binary.BigEndian.AppendUint32(s.b, uint32(header)) //nolint:gosec // G115: a valid header is shorter than 18 KiB
}

// overlaps reports whether a and b share memory. Addresses come from reflect, to
// do without unsafe.
func overlaps(a, b []byte) bool {
	if len(a) == 0 || len(b) == 0 {
		return false
	}
	x, y := reflect.ValueOf(&a[0]).Pointer(), reflect.ValueOf(&b[0]).Pointer()
	return x < y+uintptr(len(b)) && y < x+uintptr(len(a))
}

// grow makes room for n more bytes in dst. It fails when those would lie over
// input.
func grow(dst []byte, n int, input []byte) ([]byte, error) {
	if cap(dst)-len(dst) < n {
		grown := make([]byte, len(dst), len(dst)+n)
		copy(grown, dst)
		return grown, nil
	}
	if overlaps(dst[len(dst):len(dst)+n], input) {
		return nil, errOverlap
	}
	return dst, nil
}
