package envelope

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
)

// Padding hides the length of a plaintext: it is sealed with its length before it
// and zeros behind it (qre1, Section 5.2). The zero value is NoPadding, which
// costs nothing.
type Padding int

// The paddings beside PadTo.
const (
	// NoPadding seals the plaintext as it is.
	NoPadding Padding = 0
	// Padme adds at most 12 % and leaks O(log log n) bits of the length n
	// (Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and
	// Communication with PURBs", PoPETs 2019, Section 4.3).
	Padme Padding = -1

	invalidPadding Padding = -2
)

// MaxPadTo bounds the argument of PadTo, in bytes: no broker takes larger
// messages.
const MaxPadTo = 1 << 30

// lengthSize is the size of the length before a padded plaintext.
const lengthSize = 4

// PadTo pads to multiples of n bytes, from 1 to MaxPadTo, the 4 bytes of the
// length included. For any other n the result is not valid.
func PadTo(n int) Padding {
	if n < 1 || n > MaxPadTo {
		return invalidPadding
	}
	return Padding(n)
}

// Validate returns nil for NoPadding, Padme, and PadTo of a valid number.
func (p Padding) Validate() error {
	if p < Padme || p > MaxPadTo {
		return fmt.Errorf("padding: use NoPadding, Padme, or PadTo of 1 to %d", MaxPadTo)
	}
	return nil
}

// String returns "none", "padme", or "to" and the multiple.
func (p Padding) String() string {
	switch {
	case p == NoPadding:
		return "none"
	case p == Padme:
		return "padme"
	case p.Validate() != nil:
		return "invalid"
	}
	return fmt.Sprintf("to %d", int(p))
}

// Size returns how many bytes are encrypted for a plaintext of n bytes: n for
// NoPadding. Seal refuses a plaintext of 2^32 bytes or more unless p is NoPadding.
func (p Padding) Size(n int) int {
	switch p {
	case NoPadding:
		return n
	case Padme:
		return padme(n + lengthSize)
	}
	multiple := max(int(p), 1)
	over := (n + lengthSize) % multiple
	if over == 0 {
		return n + lengthSize
	}
	return n + lengthSize + multiple - over
}

// padme rounds n, which is lengthSize or more, up to a number whose binary form
// has no more significant digits than the floating point format of PURBs: E =
// floor(log2 n) digits after the first, of which the last E - (floor(log2 E) + 1)
// are zero.
func padme(n int) int {
	e := bits.Len(uint(n)) - 1 //nolint:gosec // G115: n is not negative
	s := bits.Len(uint(e))     //nolint:gosec // G115: floor(log2 e) + 1
	mask := 1<<max(e-s, 0) - 1
	return (n + mask) &^ mask
}

// check refuses a plaintext of n bytes that p cannot pad.
func (p Padding) check(n int64) error {
	if p == NoPadding {
		return nil
	}
	if n > math.MaxUint32 {
		return fmt.Errorf("plaintext: %d bytes: at most %d with padding", n, int64(math.MaxUint32))
	}
	return p.Validate()
}

// fill writes plaintext and its padding over dst, which has Size bytes.
func fill(dst, plaintext []byte) {
	binary.BigEndian.PutUint32(dst, uint32(len(plaintext))) //nolint:gosec // G115: checked by check
	n := copy(dst[lengthSize:], plaintext)
	clear(dst[lengthSize+n:])
}

// unpad returns the plaintext within b, and false if b is none that was padded.
func unpad(b []byte) ([]byte, bool) {
	if len(b) < lengthSize {
		return nil, false
	}
	n := uint64(binary.BigEndian.Uint32(b))
	b = b[lengthSize:]
	if n > uint64(len(b)) {
		return nil, false
	}
	return b[:n], zero(b[n:])
}

// zero reports whether all of b is zero, in words, because padding is long.
func zero(b []byte) bool {
	var sum uint64
	for ; len(b) >= 8; b = b[8:] {
		sum |= binary.NativeEndian.Uint64(b)
	}
	for _, c := range b {
		sum |= uint64(c)
	}
	return sum == 0
}
