package envelope

import (
	"bytes"
	"crypto/aes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"
)

// block is a 128-bit block as an element of GF(2^128), in the bit order of NIST
// SP 800-38D, Section 6.3: the first bit of the first byte is the coefficient of
// x^0.
type block struct{ hi, lo uint64 }

func blockOf(b []byte) block {
	return block{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
}

func (a block) bytes() []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, a.hi), a.lo)
}

func (a block) add(b block) block { return block{a.hi ^ b.hi, a.lo ^ b.lo} }

// mul multiplies modulo 1 + x + x^2 + x^7 + x^128 (SP 800-38D, Algorithm 1).
func (a block) mul(b block) (z block) {
	for i := range 128 {
		bit := a.hi >> (63 - i%64)
		if i >= 64 {
			bit = a.lo >> (63 - i%64)
		}
		if bit&1 == 1 {
			z = z.add(b)
		}
		carry := b.lo & 1
		b = block{b.hi >> 1, b.lo>>1 | b.hi<<63}
		if carry == 1 {
			b.hi ^= 0xe1 << 56
		}
	}
	return z
}

// inverse is a^(2^128-2).
func (a block) inverse() block {
	r := block{hi: 1 << 63} // one
	for range 127 {
		r = r.mul(r).mul(a)
	}
	return r.mul(r)
}

// ghash is GHASH over additional data and ciphertext (SP 800-38D, Section 6.4).
func ghash(h block, additional, ciphertext []byte) (y block) {
	for _, part := range [][]byte{additional, ciphertext} {
		for chunk := range slices.Chunk(part, 16) {
			var padded [16]byte
			copy(padded[:], chunk)
			y = y.add(blockOf(padded[:])).mul(h)
		}
	}
	return y.add(block{8 * uint64(len(additional)), 8 * uint64(len(ciphertext))}).mul(h)
}

func TestField(t *testing.T) {
	one := block{hi: 1 << 63}
	a := block{0x66e94bd4ef8a2c3b, 0x884cfa59ca342b2e}
	if got := a.mul(a.inverse()); got != one {
		t.Fatalf("a * a^-1 = %x", got)
	}
	// Test case 2 of the GCM specification (McGrew and Viega, Appendix B).
	ciphertext := []byte{0x03, 0x88, 0xda, 0xce, 0x60, 0xb6, 0xa3, 0x92, 0xf3, 0x28, 0xc2, 0xb9, 0x71, 0xb2, 0xfe, 0x78}
	if got, want := ghash(a, nil, ciphertext), (block{0xf38cbb1ad69223dc, 0xc3457ae5b6b0f885}); got != want {
		t.Fatalf("GHASH = %x, want %x", got, want)
	}
}

// salamander is one envelope whose ciphertext and tag are good for two keys.
type salamander struct {
	body       []byte // commits to the first key
	aad        []byte
	first, two [32]byte // the message keys
	plaintexts [2][]byte
}

// newSalamander builds one for a and b, from the algebra of GCM alone: the tag is
// linear in each block of the ciphertext, so one free block makes the tags of two
// keys agree. Of the first block the plaintext under a is chosen, of the second
// that under b.
func newSalamander(t *testing.T, a, b Deriver, h Header, data []byte) *salamander {
	t.Helper()
	s := new(salamander)
	info := append([]byte(infoLabel), byte(len(h.KeyID)))
	info = append(append(info, h.KeyID...), h.Salt[:]...)
	type half struct {
		key  [32]byte
		h, j block // GHASH key; encrypted counter block 0
		pad  []byte
	}
	var halves [2]half
	nonce := bytes.Repeat([]byte{0x5a}, NonceSize)
	for i, d := range []Deriver{a, b} {
		okm, err := d.Derive(h.Sender, info)
		if err != nil {
			t.Fatal(err)
		}
		x := &halves[i]
		x.key = [32]byte(okm[:32])
		if i == 0 {
			h.Commitment = Commitment(okm[32:])
		}
		cipher, err := aes.NewCipher(x.key[:])
		if err != nil {
			t.Fatal(err)
		}
		encrypt := func(in []byte) []byte {
			out := make([]byte, 16)
			cipher.Encrypt(out, in)
			return out
		}
		counter := func(n uint32) []byte { return binary.BigEndian.AppendUint32(slices.Clone(nonce), n) }
		x.h = blockOf(encrypt(make([]byte, 16)))
		x.j = blockOf(encrypt(counter(1)))
		x.pad = slices.Concat(encrypt(counter(2)), encrypt(counter(3)), encrypt(counter(4)))
	}
	s.first, s.two = halves[0].key, halves[1].key

	header, err := h.AppendTo(nil)
	if err != nil {
		t.Fatal(err)
	}
	s.aad = append([]byte(domainQueue), 0, 0, byte(len(header)>>8), byte(len(header)))
	s.aad = slices.Concat(s.aad, header, data)

	ciphertext := make([]byte, 48)
	for i := range 16 {
		ciphertext[i] = "approve payment "[i] ^ halves[0].pad[i]
		ciphertext[16+i] = " reject payment "[i] ^ halves[1].pad[16+i]
	}
	// The last block X adds X * H^2 to the tag. The tags agree when
	// S1 + X * H1^2 = S2 + X * H2^2, S being the tag for X = 0.
	s1 := ghash(halves[0].h, s.aad, ciphertext).add(halves[0].j)
	s2 := ghash(halves[1].h, s.aad, ciphertext).add(halves[1].j)
	square1, square2 := halves[0].h.mul(halves[0].h), halves[1].h.mul(halves[1].h)
	x := s1.add(s2).mul(square1.add(square2).inverse())
	copy(ciphertext[32:], x.bytes())
	tag := ghash(halves[0].h, s.aad, ciphertext).add(halves[0].j)
	for i := range s.plaintexts {
		s.plaintexts[i] = make([]byte, 48)
		for j := range ciphertext {
			s.plaintexts[i][j] = ciphertext[j] ^ halves[i].pad[j]
		}
	}
	s.body = slices.Concat(header, nonce, ciphertext, tag.bytes())
	return s
}

// GCM does not commit to its key: one ciphertext opens under two. The envelope
// does (qre1, Section 3.1).
func TestSalamander(t *testing.T) {
	a, b := newMasterKey(0xaa), newMasterKey(0xbb)
	h := *testHeader(t)
	data := testData(t, &testContext, h.Bound)
	for i := range h.Salt {
		h.Salt[i] = byte(i)
	}
	s := newSalamander(t, a, b, h, data)
	m := mustParse(t, s.body)

	// It is one: plain AES-GCM accepts it under both keys.
	for i, key := range [][32]byte{s.first, s.two} {
		aead, err := newAEAD(key[:])
		if err != nil {
			t.Fatal(err)
		}
		got, err := aead.Open(nil, nil, s.body[len(m.head):], s.aad)
		if err != nil || !bytes.Equal(got, s.plaintexts[i]) {
			t.Fatalf("key %d: %q, %v: not a salamander", i, got, err)
		}
	}
	if bytes.Equal(s.plaintexts[0], s.plaintexts[1]) {
		t.Fatal("both keys give one plaintext")
	}

	// The envelope opens under the key that it commits to, and no other, in
	// whatever order they are tried.
	o := NewOpener(nil)
	for range 2 {
		if got, err := o.Open(nil, m, b, data); !errors.Is(err, ErrAuthenticationFailed) || got != nil {
			t.Errorf("the second key: %q, %v, want ErrAuthenticationFailed", got, err)
		}
		if got, err := o.Open(nil, m, a, data); err != nil || !bytes.Equal(got, s.plaintexts[0]) {
			t.Errorf("the first key: %q, %v", got, err)
		}
	}
	// Without the comparison the second key would have opened it.
	forged := m.Header
	k, err := derive(b, m.KeyID, m.Sender, &m.Salt)
	if err != nil {
		t.Fatal(err)
	}
	if forged.Commitment == k.commitment {
		t.Fatal("it commits to both")
	}
	if got, err := k.aead.Open(nil, nil, s.body[len(m.head):], s.aad); err != nil || !bytes.Equal(got, s.plaintexts[1]) {
		t.Errorf("the second key's own cipher: %q, %v", got, err)
	}
}
