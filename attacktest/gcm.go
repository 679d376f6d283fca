package attacktest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"

	"github.com/queue-runtime/queue/envelope"
)

// gcm is AES-256-GCM taken apart (NIST SP 800-38D, Section 6 and 7).
type gcm struct {
	block cipher.Block
	aead  cipher.AEAD // reads and writes nonce, ciphertext, tag
	h     element     // the hash subkey
}

func newGCM(key [32]byte) (*gcm, error) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	// Of the kinds of GCM the one that also FIPS 140-3 allows.
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	var zero [aes.BlockSize]byte
	block.Encrypt(zero[:], zero[:])
	return &gcm{block: block, aead: aead, h: elementOf(zero[:])}, nil
}

// counter is the counter block for a 96-bit nonce.
func counter(nonce envelope.Nonce, n uint32) []byte {
	return binary.BigEndian.AppendUint32(bytes.Clone(nonce[:]), n)
}

// stream encrypts, without a tag.
func (g *gcm) stream(nonce envelope.Nonce, p []byte) []byte {
	out := make([]byte, len(p))
	cipher.NewCTR(g.block, counter(nonce, 2)).XORKeyStream(out, p)
	return out
}

// tag computes the tag of additional data and ciphertext.
func (g *gcm) tag(nonce envelope.Nonce, additional, ciphertext []byte) element {
	var y element
	absorb := func(b []byte) {
		for len(b) > 0 {
			var block [aes.BlockSize]byte
			b = b[copy(block[:], b):]
			y = y.plus(elementOf(block[:])).times(g.h)
		}
	}
	absorb(additional)
	absorb(ciphertext)
	lengths := binary.BigEndian.AppendUint64(nil, uint64(len(additional))*8)
	absorb(binary.BigEndian.AppendUint64(lengths, uint64(len(ciphertext))*8))
	mask := make([]byte, aes.BlockSize)
	g.block.Encrypt(mask, counter(nonce, 1))
	return y.plus(elementOf(mask))
}

// element is one of GF(2^128) in the bit order of GCM: the first bit of a block
// is the coefficient of x^0 (SP 800-38D, Section 6.3).
type element struct{ hi, lo uint64 }

func elementOf(b []byte) element {
	return element{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
}

func (a element) put(b []byte) {
	binary.BigEndian.PutUint64(b, a.hi)
	binary.BigEndian.PutUint64(b[8:], a.lo)
}

func (a element) plus(b element) element { return element{a.hi ^ b.hi, a.lo ^ b.lo} }

// times is Algorithm 1 of SP 800-38D, Section 6.3.
func (a element) times(b element) element {
	var z element
	for i := range 128 {
		word, bit := a.hi, 63-i
		if i > 63 {
			word, bit = a.lo, 127-i
		}
		if word>>bit&1 == 1 {
			z = z.plus(b)
		}
		carry := b.lo & 1
		b = element{b.hi >> 1, b.lo>>1 | b.hi<<63}
		if carry == 1 {
			b.hi ^= 0xe1 << 56
		}
	}
	return z
}

// inverse is a^(2^128-2) (Fermat).
func (a element) inverse() element {
	one := element{hi: 1 << 63}
	z, square := one, a
	for range 127 {
		square = square.times(square)
		z = z.times(square)
	}
	return z
}
