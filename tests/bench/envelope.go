package main

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/internal/sealing"
	"github.com/queue-runtime/queue/internal/stream"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/observe"
	"github.com/queue-runtime/queue/tests/bench/internal/measure"
)

const (
	wayRaw   = "raw AES-256-GCM"
	wayBound = "raw, as much authenticated beside it"
	wayOurs  = "queue"
	wayTink  = "tink-go AES256-GCM"
	wayJose  = "go-jose dir, A256GCM"
	keyName  = "task-tactician-2026-01"
	someName = "task-tactician"
)

// envelopeSizes are those of the plaintexts.
var envelopeSizes = []int{256, 1 << 10, 8 << 10, 16 << 10, 64 << 10, 1 << 20}

// party is a sender and a receiver as package queue runs them: all that it does with a
// message between the application and the driver.
type party struct {
	sealer sealing.QueueSealer
	opener sealing.QueueOpener
	scope  observe.Scope
	keys   *keys.Cached
}

// newParty returns a party with one key.
func newParty() (*party, error) {
	key, err := keys.Generate(keyName, nil)
	if err != nil {
		return nil, err
	}
	ring, err := keys.NewRing(key)
	if err != nil {
		return nil, err
	}
	if err := ring.SetCurrent(keyName); err != nil {
		return nil, err
	}
	return newPartyOf(ring)
}

func newPartyOf(ring *keys.Ring) (*party, error) {
	cached, err := keys.NewCached(ring, nil) // as a Client does
	if err != nil {
		return nil, err
	}
	p := &party{scope: observe.NewScope(nil, observe.Source{Queue: someName}), keys: cached}
	c := sealing.NewCipher(cached)
	p.sealer = sealing.QueueSealer{Queue: someName, Crypto: c, Keys: cached, Streams: stream.New(c.EndEpochs), Observe: &p.scope}
	p.opener = sealing.QueueOpener{Queue: someName, Crypto: c, Valid: cached, Observe: &p.scope}
	return p, nil
}

// webhook is the metadata of a webhook on its way to a bot.
func webhook(body []byte) driver.Message {
	return driver.Message{
		ID: "72d3162e-cc78-11e3-81ab-4c9367dc0958", ContentType: "application/json", Body: body,
		Attributes: map[string]string{"event": "pull_request", "action": "opened"},
	}
}

// seal replaces the body of m as Sender.Send does.
func (p *party) seal(ctx context.Context, m *driver.Message) error {
	id, f := p.sealer.CurrentKey(ctx)
	if f != nil {
		return f
	}
	now := time.Now()
	var numbers sealing.Numbers
	p.sealer.Begin(&numbers, stream.Plain, now)
	n := numbers.Next(id, m)
	if _, f := p.sealer.Seal(ctx, &numbers, &n, m, now); f != nil {
		n.Void()
		return f
	}
	n.Confirm()
	return nil
}

// raw returns AES-256-GCM as a program without envelopes would use it: one cached cipher
// and random nonces.
func raw() (cipher.AEAD, error) {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails: it ends the process instead
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// rawSeal appends to dst what such a cipher makes of plaintext.
func rawSeal(gcm cipher.AEAD, dst, plaintext []byte) []byte {
	return gcm.Seal(dst, nil, plaintext, nil) //nolint:gosec // G407: it draws the nonce itself
}

// envelopeWays are the ways to seal and to open a plaintext of that size. Raw sealing
// appends to a buffer; all others make new memory, as does everything that opens.
func envelopeWays(size int) (seal, open []measure.Way, err error) {
	plaintext := make([]byte, size)
	_, _ = rand.Read(plaintext)           // as above
	each := max(1, 64<<10/(size+512))     // operations a turn: tens of microseconds
	data := []byte("pull_request opened") // what the peers bind
	add := func(name string, sealOne func() error, openOne func() ([]byte, error)) error {
		if got, err := openOne(); err != nil || !bytes.Equal(got, plaintext) {
			return fmt.Errorf("%s: opened %d bytes of %d, %w", name, len(got), size, err)
		}
		seal = append(seal, measure.Do(name, each, func(context.Context) error { return sealOne() }))
		open = append(open, measure.Do(name, each, func(context.Context) error { _, err := openOne(); return err }))
		return nil
	}

	gcm, err := raw()
	if err != nil {
		return nil, nil, err
	}
	dst := make([]byte, 0, size+64)
	bare := rawSeal(gcm, nil, plaintext)
	if err := add(wayRaw,
		func() error { rawSeal(gcm, dst, plaintext); return nil },
		func() ([]byte, error) { return gcm.Open(nil, nil, bare, nil) }); err != nil {
		return nil, nil, err
	}

	p, err := newParty()
	if err != nil {
		return nil, nil, err
	}
	ctx := context.Background()
	sealed := webhook(plaintext)
	if err := p.seal(ctx, &sealed); err != nil {
		return nil, nil, err
	}
	beside, err := authenticated(&sealed)
	if err != nil {
		return nil, nil, err
	}
	bound := gcm.Seal(nil, nil, plaintext, beside) //nolint:gosec // G407: it draws the nonce itself
	if err := add(wayBound,
		func() error { gcm.Seal(nil, nil, plaintext, beside); return nil }, //nolint:gosec // G407
		func() ([]byte, error) { return gcm.Open(nil, nil, bound, beside) }); err != nil {
		return nil, nil, err
	}
	template, arrived := webhook(nil), &driver.Delivery{Message: sealed}
	if err := add(wayOurs,
		func() error {
			m := template
			m.Body = plaintext
			return p.seal(ctx, &m)
		},
		func() ([]byte, error) {
			var opened sealing.Opened
			if f := p.opener.Open(ctx, arrived, &opened); f != nil {
				return nil, f
			}
			return opened.Body, nil
		}); err != nil {
		return nil, nil, err
	}

	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, nil, err
	}
	tink, err := aead.New(handle)
	if err != nil {
		return nil, nil, err
	}
	tinkSealed, err := tink.Encrypt(plaintext, data)
	if err != nil {
		return nil, nil, err
	}
	if err := add(wayTink,
		func() error { _, err := tink.Encrypt(plaintext, data); return err },
		func() ([]byte, error) { return tink.Decrypt(tinkSealed, data) }); err != nil {
		return nil, nil, err
	}

	sealOne, openOne, err := joseWay(plaintext)
	if err != nil {
		return nil, nil, err
	}
	return seal, open, errors.Join(add(wayJose, sealOne, openOne))
}

// authenticated returns as many bytes as are authenticated beside the plaintext of a
// sealed message: its header and its context (qre1, Section 4.1).
func authenticated(m *driver.Message) ([]byte, error) {
	e, err := envelope.Parse(m.Body)
	if err != nil {
		return nil, err
	}
	beside := make([]byte, len("QRE1-AAD-v1\x00")+4+len(m.Body)-envelope.NonceSize-len(e.Ciphertext)-envelope.TagSize)
	return envelope.AppendContext(beside, &envelope.Context{MessageID: m.ID, ContentType: m.ContentType, Attributes: m.Attributes}, e.Bound)
}

// joseWay is compact JWE under a shared key.
func joseWay(plaintext []byte) (seal func() error, open func() ([]byte, error), err error) {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails: it ends the process instead
	e, err := jose.NewEncrypter(jose.A256GCM, jose.Recipient{Algorithm: jose.DIRECT, Key: key}, nil)
	if err != nil {
		return nil, nil, err
	}
	one := func() (string, error) {
		o, err := e.Encrypt(plaintext)
		if err != nil {
			return "", err
		}
		return o.CompactSerialize()
	}
	text, err := one()
	if err != nil {
		return nil, nil, err
	}
	open = func() ([]byte, error) {
		o, err := jose.ParseEncryptedCompact(text, []jose.KeyAlgorithm{jose.DIRECT}, []jose.ContentEncryption{jose.A256GCM})
		if err != nil {
			return nil, err
		}
		return o.Decrypt(key)
	}
	return func() error { _, err := one(); return err }, open, nil
}

// envelopeFigures are those of one size.
type envelopeFigures struct {
	size       int
	seal, open []measure.Figures
}

func measureEnvelope(ctx context.Context, sizes []int, rounds int) (all []envelopeFigures, err error) {
	for _, size := range sizes {
		seal, open, err := envelopeWays(size)
		if err != nil {
			return nil, err
		}
		n := rounds
		if size >= 1<<20 {
			n = rounds / 4 // a turn is one message
		}
		f := envelopeFigures{size: size}
		if f.seal, err = measure.Interleaved(ctx, measure.Options{Rounds: n}, seal); err != nil {
			return nil, err
		}
		if f.open, err = measure.Interleaved(ctx, measure.Options{Rounds: n}, open); err != nil {
			return nil, err
		}
		all = append(all, f)
	}
	return all, nil
}

// endEpoch makes the next seal draw a new salt, as another sender's would.
func (p *party) endEpoch() {
	if c, ok := p.sealer.Crypto.(*sealing.Cipher); ok {
		c.EndEpochs()
	}
}
