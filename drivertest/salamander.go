package drivertest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/keys"
)

// salamander returns an envelope for m that GCM alone opens under both keys, to
// two texts: it is sealed by a, to plaintext and some bytes, and passes the tag
// under b as well. GCM does not commit to its key (Dodis, Grubbs, Ristenpart,
// Woodage: Fast Message Franking, CRYPTO 2018, Section 3); the envelope's
// commitment must make the difference. Both properties are checked here.
func salamander(m *driver.Message, origin string, a, b *keys.Key, plaintext []byte) ([]byte, error) {
	e := envelope.EncryptedMessage{Header: envelope.Header{
		EncryptedAt: time.Now().UnixMilli(),
		Sequence:    1,
		KeyID:       string(a.ID()),
		Origin:      origin,
	}}
	// crypto/rand.Read never fails: it ends the process instead.
	_, _ = rand.Read(e.Salt[:])
	_, _ = rand.Read(e.Nonce[:])
	var key [2][32]byte
	for i, k := range []*keys.Key{a, b} {
		okm, err := k.Derive(e.Sender, derivationInfo(&e.Header))
		if err != nil {
			return nil, err
		}
		copy(key[i][:], okm[:32])
		if i == 0 {
			copy(e.Commitment[:], okm[32:])
		}
	}
	h, err := e.AppendTo(nil)
	if err != nil {
		return nil, err
	}
	// qre1, Section 4.1.
	additional := append([]byte("QRE1-AAD-v1\x00"), binary.BigEndian.AppendUint32(nil, uint32(len(h)))...) //nolint:gosec // G115: a header is short
	additional = append(additional, h...)
	contextData, err := envelope.AppendContext(nil, &envelope.Context{MessageID: m.ID, ContentType: m.ContentType}, nil)
	if err != nil {
		return nil, err
	}
	additional = append(additional, contextData...)

	// Sealed by a, padded to whole blocks, with one block of ciphertext more,
	// which is chosen such that the tags agree.
	padded := bytes.Clone(plaintext)
	for len(padded)%aes.BlockSize != 0 {
		padded = append(padded, ' ')
	}
	first, err := newGCM(key[0])
	if err != nil {
		return nil, err
	}
	second, err := newGCM(key[1])
	if err != nil {
		return nil, err
	}
	c := first.stream(e.Nonce, padded)
	c = append(c, make([]byte, aes.BlockSize)...)
	// With the free block X zero the tags are t1 and t2; X adds X * H^2 to each.
	t1, t2 := first.tag(e.Nonce, additional, c), second.tag(e.Nonce, additional, c)
	factor := first.h.times(first.h).plus(second.h.times(second.h))
	x := t1.plus(t2).times(factor.inverse())
	x.put(c[len(c)-aes.BlockSize:])
	e.Ciphertext = c
	first.tag(e.Nonce, additional, c).put(e.Tag[:])

	sealed := slices.Concat(e.Nonce[:], c, e.Tag[:])
	for _, g := range []*gcm{first, second} {
		if _, err := g.aead.Open(nil, nil, sealed, additional); err != nil {
			return nil, errors.New("the ciphertext does not open under both keys")
		}
	}
	body := e.Bytes()
	parsed, err := envelope.Parse(body)
	if err != nil {
		return nil, err
	}
	if _, err := envelope.NewOpener(nil).Open(nil, &parsed, a, contextData); err != nil {
		return nil, errors.New("the envelope does not open under the key that it commits to")
	}
	return body, nil
}

// derivationInfo is what the keys of an envelope are derived with (qre1, Section
// 3.2).
func derivationInfo(h *envelope.Header) []byte {
	info := append([]byte("QRE1/A256GCM-HKDF-SHA256-COMMIT/v1\x00"), byte(len(h.KeyID))) //nolint:gosec // G115: at most 64
	info = append(info, h.KeyID...)
	return append(info, h.Salt[:]...)
}

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
