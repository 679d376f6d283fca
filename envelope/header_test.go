package envelope

import (
	"errors"
	"fmt"
	"reflect"
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
		{"resealed_at at its end", func(h *Header) { h.ResealedAt = MaxTime }, ""},
		{"resealed_at negative", func(h *Header) { h.ResealedAt = -1 }, "resealed_at"},
		{"resealed_at late", func(h *Header) { h.ResealedAt = MaxTime + 1 }, "resealed_at"},
		{"not_before after expires_at", func(h *Header) { h.NotBefore = h.ExpiresAt + 1 }, ""},
		{"no sender ID", func(h *Header) { h.Sender = "" }, ""},
		{"sender ID of 64", func(h *Header) { h.Sender = strings.Repeat("s", 64) }, ""},
		{"sender ID of 65", func(h *Header) { h.Sender = strings.Repeat("s", 65) }, "sender ID"},
		{"sender ID with a space", func(h *Header) { h.Sender = "a b" }, "sender ID"},
		{"sequence of 1", func(h *Header) { h.Sequence, h.Settled, h.Previous, h.Void = 1, 0, 0, nil }, ""},
		{"sequence at its end", func(h *Header) { h.Sequence, h.Settled = MaxSequence, MaxSequence-1 }, ""},
		{"sequence of 2^53", func(h *Header) { h.Sequence = MaxSequence + 1 }, "sequence"},
		{"sequence of 2^64-1", func(h *Header) { h.Sequence = 1<<64 - 1 }, "sequence"},
		{"settled just below", func(h *Header) { h.Settled = h.Sequence - 1 }, ""},
		{"settled at the sequence", func(h *Header) { h.Settled = h.Sequence }, "settled"},
		{"previous just below", func(h *Header) { h.Previous = h.Sequence - 1 }, ""},
		{"previous at the sequence", func(h *Header) { h.Previous = h.Sequence }, "previous"},
		{"a stream of zeros", func(h *Header) { h.Stream = [StreamSize]byte{} }, ""},
		{"void up to settled", func(h *Header) { h.Void = []Range{{1, h.Settled}} }, ""},
		{"void beyond settled", func(h *Header) { h.Void = []Range{{1, h.Settled + 1}} }, "void ranges"},
		{"void and nothing settled", func(h *Header) { h.Settled, h.Void = 0, []Range{{1, 1}} }, "void ranges"},
		{"void from 0", func(h *Header) { h.Void = []Range{{0, 1}} }, "void ranges"},
		{"void backward", func(h *Header) { h.Void = []Range{{2, 1}} }, "void ranges"},
		{"void adjacent", func(h *Header) { h.Void = []Range{{1, 2}, {3, 3}} }, ""},
		{"void overlapping", func(h *Header) { h.Void = []Range{{1, 2}, {2, 3}} }, "void ranges"},
		{"void descending", func(h *Header) { h.Void = []Range{{3, 4}, {1, 2}} }, "void ranges"},
		{"void within", func(h *Header) { h.Void = []Range{{1, 9}, {3, 4}} }, "void ranges"},
		{"8 void ranges", func(h *Header) { h.Void = voids(8) }, ""},
		{"9 void ranges", func(h *Header) { h.Void = voids(9) }, "void ranges"},
		{"sequence of 0", func(h *Header) { h.Sequence = 0 }, "stream"},
		{"sequence of 0 with settled", func(h *Header) { direct(h); h.Settled = 1 }, "settled"},
		{"sequence of 0 with previous", func(h *Header) { direct(h); h.Previous = 1 }, "previous"},
		{"sequence of 0 with resealed_at", func(h *Header) { direct(h); h.ResealedAt = 1 }, "resealed_at"},
		{"sequence of 0 with void", func(h *Header) { direct(h); h.Void = voids(1) }, "void ranges"},
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
				if want := len("before") + h.size(len(encodeIDs(h.KeyID, h.Sender))); len(encoded) != want {
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
			// Sealing refuses the same, but for the IDs, which are the Sealer's.
			if tt.field == "key ID" || tt.field == "sender ID" {
				if _, err := NewSealer(newMasterKey(1), h.KeyID, h.Sender); err == nil {
					t.Fatal("NewSealer took the ID")
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

// voids returns n void ranges.
func voids(n int) (list []Range) {
	for i := range uint64(n) {
		list = append(list, Range{2*i + 1, 2*i + 1})
	}
	return list
}

// direct makes h a header of direct use.
func direct(h *Header) {
	h.Stream, h.Sequence, h.Settled, h.Previous, h.ResealedAt, h.Void = [StreamSize]byte{}, 0, 0, 0, 0, nil
}

// Each use refuses the other's headers, and says what is wrong with them.
func TestSealUse(t *testing.T) {
	s := newTestSealer(t, newMasterKey(1))
	if b, err := s.Seal(nil, appHeader(t), nil, nil); !errors.Is(err, ErrEncryptionFailed) || b != nil || !strings.Contains(err.Error(), "sequence: 0") {
		t.Errorf("a header without sequence as a message: %v", err)
	}
	if b, err := s.SealApp(nil, testHeader(t), nil, nil); !errors.Is(err, ErrEncryptionFailed) || b != nil || !strings.Contains(err.Error(), "sequence: set") {
		t.Errorf("a header with a sequence for direct use: %v", err)
	}
}

// What resealing may change, and what it keeps.
func TestHeaderReseal(t *testing.T) {
	h := *testHeader(t)
	h.Salt[0], h.Commitment[0] = 1, 1
	was := h
	r := h.Reseal(1_770_000_000_000)
	if !reflect.DeepEqual(h, was) {
		t.Error("the header itself was changed")
	}
	was.ResealedAt, was.KeyID, was.Salt, was.Commitment = 1_770_000_000_000, "", Salt{}, Commitment{}
	if !reflect.DeepEqual(r, was) {
		t.Errorf("resealed: %+v\nwant %+v", r, was)
	}

	// Under another key, padded as it was, it has the same identity and length.
	older, newer := newMasterKey(1), newMasterKey(2)
	data := testData(t, &testContext, h.Bound)
	b, err := newTestSealer(t, older).SealPadded(nil, &h, testPlaintext, data, Padme)
	if err != nil {
		t.Fatal(err)
	}
	m := mustParse(t, b)
	s, err := NewSealer(newer, "newer", m.Sender)
	if err != nil {
		t.Fatal(err)
	}
	r = m.Reseal(m.EncryptedAt + 1)
	r.ExpiresAt = 0
	again, err := s.SealPadded(nil, &r, testPlaintext, data, m.Padding())
	if err != nil {
		t.Fatal(err)
	}
	n := mustParse(t, again)
	if n.Sender != m.Sender || n.Stream != m.Stream || n.Sequence != m.Sequence || n.EncryptedAt != m.EncryptedAt || n.NotBefore != m.NotBefore ||
		n.KeyID != "newer" || n.ExpiresAt != 0 || n.ResealedAt != m.EncryptedAt+1 || len(n.Ciphertext) != len(m.Ciphertext) {
		t.Errorf("resealed: %+v\nwas %+v", n.Header, m.Header)
	}
	got, err := NewOpener(nil).Open(nil, n, newer, data)
	if err != nil || string(got) != string(testPlaintext) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestHeaderStream(t *testing.T) {
	h := testHeader(t)
	if got, want := h.StreamOpened(), int64(1_759_999_000_000); got != want {
		t.Errorf("opened at %d, want %d", got, want)
	}
	h.Stream = [StreamSize]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	if got, want := h.StreamOpened(), int64(1<<48-1); got != want {
		t.Errorf("opened at %d, want %d", got, want)
	}
	if got, want := h.SealedAt(), h.NotBefore; got != want {
		t.Errorf("sealed at %d, want not_before", got)
	}
	h.NotBefore = 0
	if got, want := h.SealedAt(), h.EncryptedAt; got != want {
		t.Errorf("sealed at %d, want encrypted_at", got)
	}
}

func TestHeaderEncoding(t *testing.T) {
	h := Header{
		Padded: true, EncryptedAt: 0x0102030405, NotBefore: 0x06, ExpiresAt: 0x0708,
		Sequence: 0x11121314151617, Settled: 0x0a0b, Previous: 0x0c0d0e, ResealedAt: 0x0f10, Void: []Range{{1, 2}, {0x0304, 0x0506}},
		KeyID: "k:1", Sender: "s/2", Origin: "qü", Bound: []string{"a", "bc"},
	}
	for i := range h.Stream {
		h.Stream[i] = byte(0x80 + i)
	}
	for i := range h.Salt {
		h.Salt[i], h.Commitment[i] = byte(i), byte(0xff-i)
	}
	got, err := h.AppendTo(nil)
	if err != nil {
		t.Fatal(err)
	}
	want := "QRE1\x01\x01" +
		"\x00\x00\x00\x01\x02\x03\x04\x05" + "\x00\x00\x00\x00\x00\x00\x00\x06" + "\x00\x00\x00\x00\x00\x00\x07\x08" +
		string(h.Stream[:]) + "\x00\x11\x12\x13\x14\x15\x16\x17" + "\x00\x00\x00\x00\x00\x00\x0a\x0b" +
		"\x00\x00\x00\x00\x00\x0c\x0d\x0e" + "\x00\x00\x00\x00\x00\x00\x0f\x10" +
		"\x02" + "\x00\x00\x00\x00\x00\x00\x00\x01" + "\x00\x00\x00\x00\x00\x00\x00\x02" + "\x00\x00\x00\x00\x00\x00\x03\x04" + "\x00\x00\x00\x00\x00\x00\x05\x06" +
		"\x03k:1" + "\x03s/2" + "\x03q\xc3\xbc" + "\x02" + "\x01a" + "\x02bc" + string(h.Salt[:]) + string(h.Commitment[:])
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
	if MinOverhead != 175 {
		t.Fatalf("MinOverhead is %d", MinOverhead)
	}
	if got, want := SealedSize(&Header{KeyID: "k", Origin: "q"}, 0), 177; got != want {
		t.Errorf("least envelope: %d bytes, want %d", got, want)
	}
	h := testHeader(t)
	h.Bound = names(64)
	if got, want := SealedSize(h, 1000), 1000+MinOverhead+len(h.KeyID)+len(h.Sender)+len(h.Origin)+2*16+64*5; got != want {
		t.Errorf("%d bytes, want %d", got, want)
	}
}
