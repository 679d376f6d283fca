package envelope

import (
	"bytes"
	"errors"
	"math"
	"testing"
)

func TestPaddingSize(t *testing.T) {
	for _, tt := range []struct {
		p    Padding
		n    int
		want int
	}{
		{NoPadding, 0, 0}, {NoPadding, 1000, 1000},
		{PadTo(1), 0, 4}, {PadTo(1), 7, 11},
		{PadTo(256), 0, 256}, {PadTo(256), 252, 256}, {PadTo(256), 253, 512},
		{PadTo(MaxPadTo), 1, MaxPadTo},
		// L = n + 4, by the algorithm of PURBs.
		{Padme, 0, 4}, {Padme, 3, 7}, {Padme, 4, 8}, {Padme, 5, 10}, {Padme, 13, 18}, {Padme, 61, 72}, {Padme, 96, 104},
		{Padme, 996, 1024}, {Padme, 8192, 8704}, {Padme, 1<<20 - 4, 1 << 20}, {Padme, 1<<20 - 3, 1<<20 + 1<<15},
	} {
		if got := tt.p.Size(tt.n); got != tt.want {
			t.Errorf("%s: %d bytes become %d, want %d", tt.p, tt.n, got, tt.want)
		}
	}
	// At most 12 % more, and never less; longer plaintexts never become shorter.
	last := 0
	for n := range 1 << 17 {
		got := Padme.Size(n)
		if l := n + lengthSize; got < l || got > l+l*12/100 && got != l || got < last {
			t.Fatalf("%d bytes become %d, after %d", n, got, last)
		}
		last = got
	}
}

func TestPaddingValidate(t *testing.T) {
	for _, p := range []Padding{NoPadding, Padme, PadTo(1), PadTo(MaxPadTo)} {
		if err := p.Validate(); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
	h := testHeader(t)
	s := newTestSealer(t, newMasterKey(1))
	for _, p := range []Padding{PadTo(0), PadTo(-1), PadTo(MaxPadTo + 1), PadTo(math.MinInt), -3, MaxPadTo + 1} {
		if err := p.Validate(); err == nil || p.String() != "invalid" {
			t.Errorf("%s, %d: no error", p, p)
		}
		if b, err := s.SealPadded(nil, h, testPlaintext, nil, p); !errors.Is(err, ErrEncryptionFailed) || b != nil {
			t.Errorf("sealed with %d: %v", p, err)
		}
	}
	if err := Padme.check(math.MaxUint32); err != nil {
		t.Error(err)
	}
	if err := Padme.check(math.MaxUint32 + 1); err == nil {
		t.Error("a length that four bytes cannot hold passes")
	}
	if err := NoPadding.check(math.MaxInt64); err != nil {
		t.Error(err)
	}
}

// Padded messages open to what was sealed, into any dst, and do not show how long
// it was.
func TestSealPadded(t *testing.T) {
	key := newMasterKey(1)
	s := newTestSealer(t, key)
	o := NewOpener(nil)
	h := testHeader(t)
	data := testData(t, &testContext, h.Bound)
	for _, p := range []Padding{NoPadding, Padme, PadTo(1), PadTo(100), PadTo(4096)} {
		for _, n := range []int{0, 1, 3, 4, 95, 96, 97, 1000, 8192} {
			plaintext := bytes.Repeat([]byte{0xa5}, n)
			sealed, err := s.SealPadded([]byte("before"), h, plaintext, data, p)
			if err != nil {
				t.Fatal(err)
			}
			sealed = sealed[len("before"):]
			m := mustParse(t, sealed)
			if m.Padded != (p != NoPadding) || len(sealed) != SealedSize(h, p.Size(n)) || len(m.Ciphertext) != p.Size(n) {
				t.Errorf("%s, %d bytes: padded %v, %d bytes in all", p, n, m.Padded, len(sealed))
			}
			if again := m.Padding().Size(n); again != len(m.Ciphertext) {
				t.Errorf("%s, %d bytes: sealed anew they have %d", p, n, again)
			}
			room := make([]byte, 6, 20_000)
			copy(room, "before")
			for name, dst := range map[string][]byte{"nil": nil, "no room": []byte("before"), "room": room} {
				got, err := o.Open(dst, m, key, data)
				if err != nil || string(got) != string(dst)+string(plaintext) {
					t.Errorf("%s, %d bytes, %s: %d bytes, %v", p, n, name, len(got), err)
				}
			}
		}
	}
}

func TestZero(t *testing.T) {
	b := make([]byte, 40)
	for n := range len(b) + 1 {
		if !zero(b[:n]) {
			t.Errorf("%d zeros are none", n)
		}
		for i := range n {
			for bit := range 8 {
				b[i] = 1 << bit
				if zero(b[:n]) {
					t.Errorf("byte %d of %d is %#02x, and all is zero", i, n, b[i])
				}
				b[i] = 0
			}
		}
	}
}

// What is decrypted and is no padded plaintext leaves nothing behind.
func TestPaddingRefused(t *testing.T) {
	key := newMasterKey(1)
	r := newRecipe(t)
	r.key = key
	f := r.forge()
	f.prefix[flagsAt] = flagPadded
	f.inner = []byte("\x00\x00\x00\x06secret!!")
	room := make([]byte, 0, 100)
	m := mustParse(t, f.envelope(t, key))
	if got, err := NewOpener(nil).Open(room, m, key, f.data); err != ErrAuthenticationFailed || got != nil { // the bare sentinel: opaque
		t.Errorf("%q, %v, want ErrAuthenticationFailed", got, err)
	}
	if bytes.Contains(room[:cap(room)], []byte("secret")) {
		t.Error("dst holds what was decrypted")
	}
}
