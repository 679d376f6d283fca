package envelope

import (
	"bytes"
	"encoding/base64"
	"errors"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	body := sealTest(t, newMasterKey(1))
	m := mustParse(t, body)
	want := testHeader(t)
	want.Salt, want.Commitment = m.Salt, m.Commitment
	if !reflect.DeepEqual(m.Header, *want) {
		t.Errorf("header %+v, want %+v", m.Header, *want)
	}
	if m.Salt == (Salt{}) || m.Commitment == (Commitment{}) || m.Nonce == (Nonce{}) || m.Tag == (AuthenticationTag{}) {
		t.Error("salt, commitment, nonce or tag is zero")
	}
	if len(m.Ciphertext) != len(testPlaintext) {
		t.Errorf("ciphertext of %d bytes, want %d", len(m.Ciphertext), len(testPlaintext))
	}
	if !bytes.Equal(m.Bytes(), body) || &m.Bytes()[0] != &body[0] {
		t.Error("Bytes is not what was parsed")
	}
	header, err := m.AppendTo(nil)
	if err != nil {
		t.Fatal(err)
	}
	again := slices.Concat(header, m.Nonce[:], m.Ciphertext, m.Tag[:])
	if !bytes.Equal(again, body) {
		t.Errorf("encoded again:\n%x\nwas\n%x", again, body)
	}
}

// Every proper prefix is refused, and the error names the field that was cut. A
// prefix that is long enough to hold a tag parses, as a shorter message, and does
// not open.
func TestParseCut(t *testing.T) {
	key := newMasterKey(1)
	body := sealTest(t, key)
	h := testHeader(t)
	at := 0
	var fields []string // of each byte
	next := func(n int, field string) {
		for range n {
			fields = append(fields, field)
		}
		at += n
	}
	next(4, "marker")
	next(1, "version")
	next(1, "flags")
	next(8, "encrypted_at")
	next(8, "not_before")
	next(8, "expires_at")
	next(16, "stream")
	next(8, "sequence")
	next(8, "settled")
	next(8, "previous")
	next(8, "resealed_at")
	next(1+16*len(h.Void), "void ranges")
	next(1+len(h.KeyID), "key ID")
	next(1+len(h.Sender), "sender ID")
	next(1+len(h.Origin), "origin")
	next(1, "bound attributes")
	for _, name := range h.Bound {
		next(1+len(name), "bound attributes")
	}
	next(32, "salt")
	next(32, "key commitment")
	next(12, "nonce")
	next(16, "authentication tag")
	for n := range body {
		_, err := Parse(body[:n])
		if n >= at {
			if _, err := receive(NewOpener(nil), key, body[:n], &testContext); !errors.Is(err, ErrAuthenticationFailed) {
				t.Errorf("%d bytes of %d: %v, want ErrAuthenticationFailed", n, len(body), err)
			}
			continue
		}
		if !errors.Is(err, ErrInvalidEnvelope) {
			t.Errorf("%d bytes: %v, want ErrInvalidEnvelope", n, err)
		} else if !strings.HasPrefix(err.Error(), "invalid envelope: "+fields[n]+":") {
			t.Errorf("%d bytes: %q does not name %s", n, err, fields[n])
		}
	}
	if _, err := Parse(nil); !errors.Is(err, ErrInvalidEnvelope) {
		t.Errorf("nil: %v", err)
	}
}

func TestParseVersion(t *testing.T) {
	body := sealTest(t, newMasterKey(1))
	for v := range 256 {
		b := bytes.Clone(body)
		b[4] = byte(v)
		_, err := Parse(b)
		_, errShort := Parse(b[:5])
		switch {
		case v == Version1:
			if err != nil || !errors.Is(errShort, ErrInvalidEnvelope) {
				t.Errorf("version 1: %v, alone: %v", err, errShort)
			}
		case !errors.Is(err, ErrUnsupportedVersion) || errors.Is(err, ErrInvalidEnvelope) || !errors.Is(errShort, ErrUnsupportedVersion):
			t.Errorf("version %d: %v, alone: %v, want ErrUnsupportedVersion", v, err, errShort)
		}
	}
}

func TestParseFlags(t *testing.T) {
	body := sealTest(t, newMasterKey(1))
	for f := range 256 {
		b := bytes.Clone(body)
		b[5] = byte(f)
		m, err := Parse(b)
		switch {
		case f > 1 && !errors.Is(err, ErrInvalidEnvelope):
			t.Errorf("flags %#02x: %v", f, err)
		case f <= 1 && (err != nil || m.Padded != (f == 1)):
			t.Errorf("flags %#02x: padded %v, %v", f, m.Padded, err)
		}
	}
}

// A length that promises more than there is must not be believed.
func TestParseAllocatesNothingOnPromises(t *testing.T) {
	h := testHeader(t)
	body := sealTest(t, newMasterKey(1))[:h.size(len(encodeIDs(h.KeyID, h.Sender)))-SaltSize-CommitmentSize]
	for _, name := range h.Bound {
		body = body[:len(body)-1-len(name)]
	}
	body = body[:len(body)-1]
	body = append(body, 64) // names that are not there
	const runs = 1000
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		if _, err := Parse(body); err == nil {
			t.Fatal("parsed")
		}
	}
	runtime.ReadMemStats(&after)
	if n := (after.TotalAlloc - before.TotalAlloc) / runs; n >= 64*16 {
		t.Errorf("%d bytes allocated: room for the names was made before they were there", n)
	}
}

func TestIsSealed(t *testing.T) {
	for _, tt := range []struct {
		body string
		want bool
	}{{"", false}, {"QRE", false}, {"QRE1", true}, {"QRE1x", true}, {"QRE2\x01", false}, {"qre1\x01", false}, {" QRE1", false}, {"{}", false}} {
		if got := IsSealed([]byte(tt.body)); got != tt.want {
			t.Errorf("%q: %v", tt.body, got)
		}
	}
}

func TestIsSealedText(t *testing.T) {
	// The sixth character holds the last two bits of the marker and the first four
	// of the version.
	for version := range 256 {
		text := base64.StdEncoding.EncodeToString([]byte{'Q', 'R', 'E', '1', byte(version), 0})
		if !IsSealedText(text) || !IsSealedText([]byte(text)) {
			t.Errorf("version %d: %s is not taken for an envelope", version, text)
		}
	}
	if text := base64.StdEncoding.EncodeToString([]byte(Marker)); !IsSealedText(text) {
		t.Errorf("the marker alone: %s is not taken for an envelope", text)
	}
	sealed := 0
	for c := range 256 {
		b, err := base64.StdEncoding.DecodeString("UVJFM" + string(rune(c)) + "AA")
		want := c < 128 && err == nil && IsSealed(b)
		if got := IsSealedText("UVJFM" + string([]byte{byte(c)}) + "AA"); got != want {
			t.Errorf("UVJFM and byte %#02x: %v, want %v", c, got, want)
		}
		if want {
			sealed++
		}
	}
	if sealed != 16 {
		t.Errorf("%d characters are taken for the start of an envelope, want 16", sealed)
	}
	for _, text := range []string{"", "UVJFM", "UVJFL", "uvjfmq", " UVJFMQ", "QRE1", "UVJFMP", "UVJFMg", "UVJFM[", "UVJFM`"} {
		if IsSealedText(text) {
			t.Errorf("%q is taken for an envelope", text)
		}
	}
}

// A message whose fields were filled in by hand encodes and opens as a parsed one.
func TestMessageByHand(t *testing.T) {
	key := newMasterKey(1)
	body := sealTest(t, key)
	p := mustParse(t, body)
	m := EncryptedMessage{Header: p.Header, Nonce: p.Nonce, Ciphertext: p.Ciphertext, Tag: p.Tag}
	if !bytes.Equal(m.Bytes(), body) {
		t.Fatalf("got  %x\nwant %x", m.Bytes(), body)
	}
	data := testData(t, &testContext, m.Bound)
	got, err := NewOpener(nil).Open(nil, &m, key, data)
	if err != nil || !bytes.Equal(got, testPlaintext) {
		t.Fatalf("%q, %v", got, err)
	}
	m.Tag[0] ^= 1
	if _, err := NewOpener(nil).Open(nil, &m, key, data); !errors.Is(err, ErrAuthenticationFailed) {
		t.Errorf("altered: %v", err)
	}
	m.Origin = ""
	if b := m.Bytes(); b != nil {
		t.Errorf("an invalid header encodes to %x", b)
	}
	if _, err := NewOpener(nil).Open(nil, &m, key, data); !errors.Is(err, ErrInvalidEnvelope) {
		t.Errorf("invalid: %v", err)
	}
}

// What was parsed is what is believed. A receiver that reads another message into
// the same buffer must not act on the header of the first with the body of the
// second.
func TestMessageBufferReused(t *testing.T) {
	key := newMasterKey(1)
	s := newTestSealer(t, key)
	o := NewOpener(nil)
	h := testHeader(t)
	data := testData(t, &testContext, h.Bound)
	genuine, err := s.Seal(nil, h, testPlaintext, data)
	if err != nil {
		t.Fatal(err)
	}
	second, err := s.Seal(nil, h, testPlaintext, data)
	if err != nil {
		t.Fatal(err)
	}
	forged := bytes.Clone(genuine)
	forged[13]++ // the last byte of encrypted_at

	buf := bytes.Clone(forged)
	m := mustParse(t, buf)
	copy(buf, genuine)
	if _, err := o.Open(nil, m, key, data); !errors.Is(err, ErrAuthenticationFailed) {
		t.Errorf("the header of a forgery with the body of a message: %v", err)
	}
	buf = bytes.Clone(genuine)
	m = mustParse(t, buf)
	copy(buf, second)
	if _, err := o.Open(nil, m, key, data); !errors.Is(err, ErrAuthenticationFailed) {
		t.Errorf("the nonce of one message with the body of another: %v", err)
	}
	buf = bytes.Clone(genuine)
	m = mustParse(t, buf)
	copy(buf, forged[:len(m.head)])
	if _, err := o.Open(nil, m, key, data); err != nil {
		t.Errorf("the header was parsed before it was overwritten: %v", err)
	}
}

// Fields by which a message is opened and remembered are not believed when they
// were changed after Parse.
func TestMessageChanged(t *testing.T) {
	key := newMasterKey(1)
	body := sealTest(t, key)
	for name, change := range map[string]func(*EncryptedMessage){
		"key ID":     func(m *EncryptedMessage) { m.KeyID = "other" },
		"sender ID":  func(m *EncryptedMessage) { m.Sender = "other" },
		"salt":       func(m *EncryptedMessage) { m.Salt[0]++ },
		"commitment": func(m *EncryptedMessage) { m.Commitment[0]++ },
		"nonce":      func(m *EncryptedMessage) { m.Nonce[0]++ },
	} {
		o := NewOpener(nil)
		m := mustParse(t, body)
		data := testData(t, &testContext, m.Bound)
		if _, err := o.Open(nil, m, key, data); err != nil {
			t.Fatal(err)
		}
		change(m)
		if _, err := o.Open(nil, m, key, data); !errors.Is(err, ErrAuthenticationFailed) {
			t.Errorf("%s: %v, want ErrAuthenticationFailed", name, err)
		}
	}
}

// TestParseInto parses messages one after the other into the same memory.
func TestParseInto(t *testing.T) {
	s := newTestSealer(t, newMasterKey(1))
	var m EncryptedMessage
	for i, h := range []Header{
		{EncryptedAt: 1, Sequence: 9, Settled: 8, Origin: "q", Void: []Range{{1, 2}, {4, 5}}, Bound: []string{"a", "b", "c"}},
		{EncryptedAt: 1, Sequence: 2, Settled: 1, Origin: "q", Void: []Range{{1, 1}}, Bound: []string{"d"}},
		{EncryptedAt: 1, Sequence: 1, Origin: "other"},
	} {
		body, err := s.Seal(nil, &h, []byte("body"), []byte("data"))
		if err != nil {
			t.Fatal(err)
		}
		want := mustParse(t, body)
		if err := ParseInto(&m, body); err != nil || !slices.Equal(m.Void, want.Void) || !slices.Equal(m.Bound, want.Bound) ||
			m.Origin != want.Origin || m.Sequence != want.Sequence || m.Settled != want.Settled || m.Tag != want.Tag {
			t.Errorf("message %d: %+v, %v, want %+v", i, m, err, want)
		}
	}
	if err := ParseInto(&m, []byte(Marker)); !errors.Is(err, ErrInvalidEnvelope) || !reflect.DeepEqual(m, EncryptedMessage{}) {
		t.Errorf("after an error: %+v, %v", m, err)
	}
}
