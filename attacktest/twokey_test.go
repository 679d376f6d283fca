package attacktest

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"slices"
	"testing"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/keys"
)

func hexElement(t *testing.T, s string) element {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 16 {
		t.Fatalf("%q is no block", s)
	}
	return elementOf(b)
}

// The arithmetic is that of GCM: test case 2 of the GCM specification (McGrew and
// Viega, Appendix B) has H, C and the intermediate X1 = C * H.
func TestField(t *testing.T) {
	h := hexElement(t, "66e94bd4ef8a2c3b884cfa59ca342b2e")
	c := hexElement(t, "0388dace60b6a392f328c2b971b2fe78")
	if got, want := c.times(h), hexElement(t, "5e2ec746917062882c85b0685353deb7"); got != want {
		t.Errorf("C * H = %x, want %x", got, want)
	}
	one := element{hi: 1 << 63}
	for range 50 {
		var b [32]byte
		_, _ = rand.Read(b[:])
		x, y := elementOf(b[:16]), elementOf(b[16:])
		if x.times(y) != y.times(x) {
			t.Errorf("%x and %x do not commute", x, y)
		}
		if x.times(one) != x || x.times(x.inverse()) != one {
			t.Errorf("%x has no inverse", x)
		}
	}
}

// The same encryption as package crypto/cipher's.
func TestGCM(t *testing.T) {
	for n := range 70 {
		var key [32]byte
		_, _ = rand.Read(key[:])
		text, additional := bytes.Repeat([]byte("t"), n), bytes.Repeat([]byte("a"), 3*n%47)
		g, err := newGCM(key)
		if err != nil {
			t.Fatal(err)
		}
		want := g.aead.Seal(nil, nil, text, additional)
		nonce := envelope.Nonce(want[:envelope.NonceSize])
		c := g.stream(nonce, text)
		var tag envelope.AuthenticationTag
		g.tag(nonce, additional, c).put(tag[:])
		if got := slices.Concat(nonce[:], c, tag[:]); !bytes.Equal(got, want) {
			t.Errorf("%d bytes: sealed %x, want %x", n, got, want)
		}
	}
}

// GCM opens it under both keys (salamander checks that), the envelope under one.
func TestSalamander(t *testing.T) {
	a, err := keys.Generate("k", nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := keys.Generate("k", nil)
	if err != nil {
		t.Fatal(err)
	}
	m := driver.Message{ID: "m-1", ContentType: "text/plain"}
	body, err := twoKeyBody(&m, "orders", a, b, []byte("a text"))
	if err != nil {
		t.Fatal(err)
	}
	e, err := envelope.Parse(body)
	if err != nil {
		t.Fatal(err)
	}
	contextData, err := envelope.AppendContext(nil, &envelope.Context{MessageID: m.ID, ContentType: m.ContentType}, nil)
	if err != nil {
		t.Fatal(err)
	}
	o := envelope.NewOpener(nil)
	if got, err := o.Open(nil, &e, a, contextData); err != nil || !bytes.HasPrefix(got, []byte("a text")) {
		t.Errorf("under its own key: %q, %v", got, err)
	}
	if got, err := o.Open(nil, &e, b, contextData); err == nil {
		t.Errorf("it opens under another key, to %q", got)
	}
}
