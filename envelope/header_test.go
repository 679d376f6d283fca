package envelope

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func names(n int) []string {
	s := make([]string, n)
	for i := range s {
		s[i] = fmt.Sprintf("n%03d", i)
	}
	return s
}

func TestHeaderValidate(t *testing.T) {
	tests := []struct {
		name  string
		set   func(*Header)
		field string // "" = valid
	}{
		{"as it is", func(*Header) {}, ""},
		{"times at their ends", func(h *Header) { h.EncryptedAt, h.NotBefore, h.ExpiresAt = 0, MaxTime, MaxTime }, ""},
		{"encrypted_at negative", func(h *Header) { h.EncryptedAt = -1 }, "encrypted_at"},
		{"encrypted_at late", func(h *Header) { h.EncryptedAt = MaxTime + 1 }, "encrypted_at"},
		{"not_before negative", func(h *Header) { h.NotBefore = -1 }, "not_before"},
		{"not_before late", func(h *Header) { h.NotBefore = MaxTime + 1 }, "not_before"},
		{"expires_at negative", func(h *Header) { h.ExpiresAt = -1 }, "expires_at"},
		{"expires_at late", func(h *Header) { h.ExpiresAt = MaxTime + 1 }, "expires_at"},
		{"no key ID", func(h *Header) { h.KeyID = "" }, "key ID"},
		{"key ID of 1", func(h *Header) { h.KeyID = "k" }, ""},
		{"key ID of 64", func(h *Header) { h.KeyID = strings.Repeat("k", 64) }, ""},
		{"key ID of 65", func(h *Header) { h.KeyID = strings.Repeat("k", 65) }, "key ID"},
		{"key ID of every sign", func(h *Header) { h.KeyID = "azAZ09._:/-" }, ""},
		{"key ID with a space", func(h *Header) { h.KeyID = "a b" }, "key ID"},
		{"key ID with an umlaut", func(h *Header) { h.KeyID = "schlüssel" }, "key ID"},
		{"no origin", func(h *Header) { h.Origin = "" }, "origin"},
		{"origin of 255", func(h *Header) { h.Origin = strings.Repeat("q", 255) }, ""},
		{"origin of 256", func(h *Header) { h.Origin = strings.Repeat("q", 256) }, "origin"},
		{"origin not UTF-8", func(h *Header) { h.Origin = "q\xff" }, "origin"},
		{"origin UTF-8", func(h *Header) { h.Origin = "очередь" }, ""},
		{"no names", func(h *Header) { h.Bound = nil }, ""},
		{"64 names", func(h *Header) { h.Bound = names(64) }, ""},
		{"65 names", func(h *Header) { h.Bound = names(65) }, "bound attributes"},
		{"empty name", func(h *Header) { h.Bound = []string{""} }, "bound attributes"},
		{"name of 255", func(h *Header) { h.Bound = []string{strings.Repeat("n", 255)} }, ""},
		{"name of 256", func(h *Header) { h.Bound = []string{strings.Repeat("n", 256)} }, "bound attributes"},
		{"names descend", func(h *Header) { h.Bound = []string{"b", "a"} }, "bound attributes"},
		{"a name twice", func(h *Header) { h.Bound = []string{"a", "a"} }, "bound attributes"},
		{"names by bytes", func(h *Header) { h.Bound = []string{"A", "a", "a\x00", "aa", "\xc3\xa9"} }, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := testHeader(t)
			tt.set(h)
			err := h.Validate()
			encoded, errEncode := h.AppendTo([]byte("before"))
			if tt.field == "" {
				if err != nil || errEncode != nil {
					t.Fatalf("refused: %v, %v", err, errEncode)
				}
				if want := len("before") + h.size(h.KeyID); len(encoded) != want {
					t.Fatalf("encoded to %d bytes, want %d", len(encoded), want)
				}
				return
			}
			if !errors.Is(err, ErrInvalidEnvelope) || !errors.Is(errEncode, ErrInvalidEnvelope) {
				t.Fatalf("got %v, %v, want ErrInvalidEnvelope", err, errEncode)
			}
			if !strings.HasPrefix(err.Error(), ErrInvalidEnvelope.Error()+": "+tt.field+":") {
				t.Fatalf("%q does not name the field %s", err, tt.field)
			}
			if encoded != nil {
				t.Fatal("bytes beside an error")
			}
			// Sealing refuses the same, but for the key ID, which is the Sealer's.
			if tt.field == "key ID" {
				if _, err := NewSealer(newMasterKey(1), h.KeyID); err == nil {
					t.Fatal("NewSealer took the key ID")
				}
				return
			}
			b, err := newTestSealer(t, newMasterKey(1)).Seal(nil, h, nil, nil)
			if !errors.Is(err, ErrEncryptionFailed) || errors.Is(err, ErrInvalidEnvelope) || b != nil {
				t.Fatalf("Seal: %v, want ErrEncryptionFailed", err)
			}
		})
	}
}

func TestHeaderEncoding(t *testing.T) {
	h := Header{EncryptedAt: 0x0102030405, NotBefore: 0x06, ExpiresAt: 0x0708, KeyID: "k:1", Origin: "qü", Bound: []string{"a", "bc"}}
	for i := range h.Salt {
		h.Salt[i], h.Commitment[i] = byte(i), byte(0xff-i)
	}
	got, err := h.AppendTo(nil)
	if err != nil {
		t.Fatal(err)
	}
	want := "QRE1\x01\x00" +
		"\x00\x00\x00\x01\x02\x03\x04\x05" + "\x00\x00\x00\x00\x00\x00\x00\x06" + "\x00\x00\x00\x00\x00\x00\x07\x08" +
		"\x03k:1" + "\x03q\xc3\xbc" + "\x02" + "\x01a" + "\x02bc" + string(h.Salt[:]) + string(h.Commitment[:])
	if string(got) != want {
		t.Fatalf("got  %x\nwant %x", got, want)
	}
}

func TestHeaderTimes(t *testing.T) {
	h := Header{EncryptedAt: 1_760_000_000_123}
	if got, want := h.EncryptedTime(), time.Date(2025, 10, 9, 8, 53, 20, 123e6, time.UTC); !got.Equal(want) || got.Location() != time.UTC {
		t.Errorf("EncryptedTime %v, want %v", got, want)
	}
	if !h.NotBeforeTime().IsZero() || !h.ExpiresTime().IsZero() {
		t.Errorf("0 is %v and %v, want the zero Time", h.NotBeforeTime(), h.ExpiresTime())
	}
	h.NotBefore, h.ExpiresAt = 1, MaxTime
	if got := h.NotBeforeTime(); !got.Equal(time.UnixMilli(1)) {
		t.Errorf("NotBeforeTime %v", got)
	}
	if got := h.ExpiresTime(); got.Year() != 9999 || !got.Add(time.Millisecond).Equal(time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("ExpiresTime %v, want the last millisecond of 9999", got)
	}
}

func TestSealedSize(t *testing.T) {
	if MinOverhead != 125 {
		t.Fatalf("MinOverhead is %d", MinOverhead)
	}
	if got, want := SealedSize(&Header{KeyID: "k", Origin: "q"}, 0), 127; got != want {
		t.Errorf("least envelope: %d bytes, want %d", got, want)
	}
	h := testHeader(t)
	h.Bound = names(64)
	if got, want := SealedSize(h, 1000), 1000+MinOverhead+len(h.KeyID)+len(h.Origin)+64*5; got != want {
		t.Errorf("%d bytes, want %d", got, want)
	}
}
