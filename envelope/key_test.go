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

func (k *masterKey) Derive(sender string, info []byte) (okm [64]byte, err error) {
	k.derived.Add(1)
	if err := k.Err(); err != nil {
		return okm, err
	}
	return (&senderKey{id: sender, secret: senderSecret(k.secret, sender)}).Derive(sender, info)
}

// senderSecret is qre1, Section 3.1.
func senderSecret(master []byte, sender string) []byte {
	out, err := hkdf.Expand(sha256.New, master, "QRE1/sender/v1\x00"+string([]byte{byte(len(sender))})+sender, 32)
	if err != nil {
		panic(err)
	}
	return out
}

// senderKey is the Deriver of a sender that does not have the master key.
type senderKey struct {
	id     string
	secret []byte
}

var errOtherSender = errors.New("a sender key of another sender")

func (k *senderKey) Derive(sender string, info []byte) (okm [64]byte, err error) {
	if sender != k.id {
		return okm, errOtherSender
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
		Stream:      testStream,
		Sequence:    4711,
		Settled:     4700,
		Previous:    4703,
		ResealedAt:  1_760_000_120_000,
		Void:        []Range{{17, 17}, {4690, 4699}},
		KeyID:       "merge-warden/2026-01",
		Sender:      testSender,
		Origin:      "merge-warden",
		Bound:       bound,
	}
}

const testSender = "router/eu-1"

// testStream was opened at 1_759_999_000_000.
var testStream = [StreamSize]byte{0x01, 0x99, 0xc8, 0x1d, 0x7d, 0xc0, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19}

// appHeader is testHeader for direct use.
func appHeader(t testing.TB) *Header {
	t.Helper()
	h := testHeader(t)
	return &Header{EncryptedAt: h.EncryptedAt, NotBefore: h.NotBefore, ExpiresAt: h.ExpiresAt, KeyID: h.KeyID, Sender: h.Sender, Origin: h.Origin, Bound: h.Bound}
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
	s, err := NewSealer(d, testHeader(t).KeyID, testSender)
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
