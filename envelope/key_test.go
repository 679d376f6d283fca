package envelope

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"sync/atomic"
	"testing"
)

// masterKey is a Deriver over bytes in memory that counts its derivations.
type masterKey struct {
	secret  []byte
	derived atomic.Int64
	err     atomic.Pointer[error]
}

func newMasterKey(fill byte) *masterKey {
	return &masterKey{secret: bytes.Repeat([]byte{fill}, 32)}
}

func (k *masterKey) Derive(info []byte) (okm [64]byte, err error) {
	k.derived.Add(1)
	if err := k.Err(); err != nil {
		return okm, err
	}
	out, err := hkdf.Expand(sha256.New, k.secret, string(info), len(okm))
	copy(okm[:], out)
	return okm, err
}

func (k *masterKey) Err() error {
	if p := k.err.Load(); p != nil {
		return *p
	}
	return nil
}

var errDestroyed = errors.New("destroyed")

func (k *masterKey) destroy() { k.err.Store(&errDestroyed) }

// The message that most tests seal.
var (
	testContext = Context{
		MessageID:     "0191d3a4-7c1e-7000-8000-5f3a9c0d1e2f",
		SessionID:     "octo/repo#42",
		ContentType:   "application/json",
		CorrelationID: "req-7f",
		Attributes:    map[string]string{"event": "pull_request", "action": "", "x-bin": "\x00\xff"},
	}
	testPlaintext = []byte(`{"action":"opened","number":42}`)
)

func testHeader(t testing.TB) *Header {
	t.Helper()
	bound, err := BoundNames(testContext.Attributes)
	if err != nil {
		t.Fatal(err)
	}
	return &Header{
		EncryptedAt: 1_760_000_000_000,
		NotBefore:   1_760_000_060_000,
		ExpiresAt:   1_760_003_600_000,
		KeyID:       "merge-warden/2026-01",
		Origin:      "merge-warden",
		Bound:       bound,
	}
}

func testData(t testing.TB, c *Context, bound []string) []byte {
	t.Helper()
	data, err := AppendContext(nil, c, bound)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func newTestSealer(t testing.TB, d Deriver) *Sealer {
	t.Helper()
	s, err := NewSealer(d, testHeader(t).KeyID)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sealTest returns the envelope of testPlaintext with testContext under k.
func sealTest(t testing.TB, k Deriver) []byte {
	t.Helper()
	h := testHeader(t)
	b, err := newTestSealer(t, k).Seal(nil, h, testPlaintext, testData(t, &testContext, h.Bound))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustParse(t testing.TB, body []byte) *EncryptedMessage {
	t.Helper()
	m, err := Parse(body)
	if err != nil {
		t.Fatal(err)
	}
	return &m
}

// receive does what a receiver does with a body and the context that came beside
// it: parse, encode the context, open. A context that cannot have been bound is
// an authentication failure (qre1, Section 6.1).
func receive(o *Opener, d Deriver, body []byte, c *Context) ([]byte, error) {
	m, err := Parse(body)
	if err != nil {
		return nil, err
	}
	data, err := AppendContext(nil, c, m.Bound)
	if err != nil {
		return nil, ErrAuthenticationFailed
	}
	return o.Open(nil, &m, d, data)
}

// rejected reports whether err is one that a body altered on its way may give.
func rejected(err error) bool {
	return errors.Is(err, ErrAuthenticationFailed) || errors.Is(err, ErrInvalidEnvelope) || errors.Is(err, ErrUnsupportedVersion)
}
