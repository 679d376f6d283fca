package tests

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"fmt"
	"strings"
	"testing"

	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/keys"
)

var sizes = []int{256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20}

func label(size int) string {
	switch {
	case size >= 1<<20:
		return fmt.Sprintf("size=%dMiB", size>>20)
	case size >= 1<<10:
		return fmt.Sprintf("size=%dKiB", size>>10)
	}
	return fmt.Sprintf("size=%dB", size)
}

// message is the metadata of a webhook on its way to a bot.
type message struct {
	key     *keys.Key
	header  envelope.Header
	context *envelope.Context
	data    []byte // the context, encoded
}

func newMessage(tb testing.TB) *message {
	tb.Helper()
	m := &message{header: envelope.Header{EncryptedAt: 1_760_000_000_000, Sequence: 1, KeyID: "merge-warden-2026-01", Origin: "merge-warden"}}
	var err error
	if m.key, err = keys.Generate("merge-warden-2026-01", nil); err != nil {
		tb.Fatal(err)
	}
	m.context = &envelope.Context{
		MessageID:   "72d3162e-cc78-11e3-81ab-4c9367dc0958",
		SessionID:   "octo/repo#42",
		ContentType: "application/json",
		Attributes:  map[string]string{"event": "pull_request", "action": "opened"},
	}
	if m.header.Bound, err = envelope.BoundNames(m.context.Attributes); err != nil {
		tb.Fatal(err)
	}
	if m.data, err = envelope.AppendContext(nil, m.context, m.header.Bound); err != nil {
		tb.Fatal(err)
	}
	return m
}

func (m *message) sealer(tb testing.TB) *envelope.Sealer {
	tb.Helper()
	s, err := envelope.NewSealer(m.key, m.header.KeyID, "")
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// plain returns AES-256-GCM as a program without envelopes would use it: one
// cached cipher, random nonces.
func plain(tb testing.TB) cipher.AEAD {
	tb.Helper()
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		tb.Fatal(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		tb.Fatal(err)
	}
	return aead
}

// BenchmarkSeal: by=gcm is plain AES-256-GCM with nothing to authenticate beside
// the plaintext, by=gcm+aad authenticates the same context, by=envelope is Seal
// with a warm salt epoch. All append to a buffer of the caller's.
func BenchmarkSeal(b *testing.B) {
	for _, size := range sizes {
		m := newMessage(b)
		plaintext := make([]byte, size)
		dst := make([]byte, 0, envelope.SealedSize(&m.header, size))
		run := func(by string, seal func() error) {
			b.Run(label(size)+"/by="+by, func(b *testing.B) {
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					if err := seal(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		aead, s := plain(b), m.sealer(b)
		run("gcm", func() error { aead.Seal(dst, nil, plaintext, nil); return nil })
		run("gcm+aad", func() error { aead.Seal(dst, nil, plaintext, m.data); return nil })
		run("envelope", func() error { _, err := s.Seal(dst, &m.header, plaintext, m.data); return err })
	}
}

// BenchmarkOpen: as BenchmarkSeal. All allocate the plaintext. by=receive is all
// that a receiver does with a body: parse it, encode the context, open.
func BenchmarkOpen(b *testing.B) {
	for _, size := range sizes {
		m := newMessage(b)
		plaintext := make([]byte, size)
		run := func(by string, open func() error) {
			b.Run(label(size)+"/by="+by, func(b *testing.B) {
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					if err := open(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		aead := plain(b)
		bare, bound := aead.Seal(nil, nil, plaintext, nil), aead.Seal(nil, nil, plaintext, m.data)
		body, err := m.sealer(b).Seal(nil, &m.header, plaintext, m.data)
		if err != nil {
			b.Fatal(err)
		}
		parsed, err := envelope.Parse(body)
		if err != nil {
			b.Fatal(err)
		}
		o := envelope.NewOpener(nil)
		run("gcm", func() error { _, err := aead.Open(nil, nil, bare, nil); return err })
		run("gcm+aad", func() error { _, err := aead.Open(nil, nil, bound, m.data); return err })
		run("envelope", func() error { _, err := o.Open(nil, &parsed, m.key, m.data); return err })
		var data []byte
		run("receive", func() error {
			got, err := envelope.Parse(body)
			if err != nil {
				return err
			}
			if data, err = envelope.AppendContext(data[:0], m.context, got.Bound); err != nil {
				return err
			}
			_, err = o.Open(nil, &got, m.key, data)
			return err
		})
	}
}

// BenchmarkSalt is what the first message of a salt epoch costs on either side: a
// derivation and a key schedule.
func BenchmarkSalt(b *testing.B) {
	m := newMessage(b)
	plaintext := make([]byte, 1<<10)
	dst := make([]byte, 0, envelope.SealedSize(&m.header, len(plaintext)))
	b.Run("op=seal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := m.sealer(b).Seal(dst, &m.header, plaintext, m.data); err != nil {
				b.Fatal(err)
			}
		}
	})
	body, err := m.sealer(b).Seal(nil, &m.header, plaintext, m.data)
	if err != nil {
		b.Fatal(err)
	}
	parsed, err := envelope.Parse(body)
	if err != nil {
		b.Fatal(err)
	}
	o := envelope.NewOpener(&envelope.OpenerOptions{Entries: -1})
	b.Run("op=open", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := o.Open(nil, &parsed, m.key, m.data); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkContext: sealing and opening 1 KiB with session IDs of different lengths. GHASH
// takes whole groups of 128 bytes of additional data quickly and what is left block by
// block, so that the cost goes up and down by a tenth; compare means over all lengths.
func BenchmarkContext(b *testing.B) {
	for n := 16; n <= 128; n += 16 {
		m := newMessage(b)
		m.context.SessionID = strings.Repeat("s", n)
		var err error
		if m.data, err = envelope.AppendContext(nil, m.context, m.header.Bound); err != nil {
			b.Fatal(err)
		}
		plaintext := make([]byte, 1024)
		dst := make([]byte, 0, envelope.SealedSize(&m.header, len(plaintext)))
		s := m.sealer(b)
		b.Run(fmt.Sprint("session=", n, "/op=seal"), func(b *testing.B) {
			for b.Loop() {
				if _, err := s.Seal(dst, &m.header, plaintext, m.data); err != nil {
					b.Fatal(err)
				}
			}
		})
		body, err := s.Seal(nil, &m.header, plaintext, m.data)
		if err != nil {
			b.Fatal(err)
		}
		parsed, err := envelope.Parse(body)
		if err != nil {
			b.Fatal(err)
		}
		o := envelope.NewOpener(nil)
		b.Run(fmt.Sprint("session=", n, "/op=open"), func(b *testing.B) {
			for b.Loop() {
				if _, err := o.Open(nil, &parsed, m.key, m.data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
