package sealing

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"
	"weak"

	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/keys"
)

// Crypto seals and opens envelopes. Package queue documents it as CryptoProvider.
type Crypto interface {
	Encrypt(ctx context.Context, id keys.ID, h envelope.Header, plaintext, contextData []byte) (envelope.EncryptedMessage, error)
	Decrypt(ctx context.Context, m envelope.EncryptedMessage, contextData []byte) ([]byte, error)
}

// Cipher is the Crypto over a key provider: QRE1 in this process. It is safe for
// concurrent use.
type Cipher struct {
	keys    keys.Provider
	told    bool // keys is a Cached, which tells when a key is retired
	opener  *envelope.Opener
	current atomic.Pointer[epoch]
	retired atomic.Uint64 // calls of forget, so that what is made meanwhile is not kept
}

// epoch is the key that was sealed with last, and its salt epoch.
type epoch struct {
	key    *keys.Key
	sealer *envelope.Sealer
}

// NewCipher returns a Cipher over p, which must not be nil. If p is a keys.Cached, what
// was derived from a key is dropped when its ID leaves the list of valid keys; otherwise
// when a message asks for the key and p answers keys.ErrNotFound.
func NewCipher(p keys.Provider) *Cipher {
	c := &Cipher{keys: p, opener: envelope.NewOpener(nil)}
	if cached, ok := p.(*keys.Cached); ok {
		c.told = true
		// A Cipher has no Close, and one Cached may outlive many: it must not keep them.
		w := weak.Make(c)
		stop := cached.OnRetired(func(id keys.ID) {
			if c := w.Value(); c != nil {
				c.forget(id)
			}
		})
		runtime.AddCleanup(c, func(stop func()) { stop() }, stop)
	}
	return c
}

// forget drops what was derived from a key.
func (c *Cipher) forget(id keys.ID) {
	c.retired.Add(1)
	c.opener.Forget(string(id))
	if e := c.current.Load(); e != nil && e.key.ID() == id {
		c.current.CompareAndSwap(e, nil)
	}
}

// Keys is the provider of the Cipher's keys.
func (c *Cipher) Keys() keys.Provider { return c.keys }

// Encrypt seals under key id.
func (c *Cipher) Encrypt(ctx context.Context, id keys.ID, h envelope.Header, plaintext, contextData []byte) (envelope.EncryptedMessage, error) {
	e, err := c.epoch(ctx, id, h.Origin)
	if err != nil {
		return envelope.EncryptedMessage{}, err
	}
	e.key.Confirm()
	b, err := e.sealer.Seal(nil, &h, plaintext, contextData)
	if err != nil {
		return envelope.EncryptedMessage{}, err
	}
	return envelope.Parse(b)
}

// sealingKey returns a key that may seal for a queue. It fails with keys.ErrExpired for
// a key that seals no more, and with keys.ErrInvalidKey for one of other queues. The caller
// confirms it: what is sealed under it cannot be unsealed under another.
func (c *Cipher) sealingKey(ctx context.Context, id keys.ID, origin string) (*keys.Key, error) {
	key, err := GetKey(ctx, c.keys, id)
	if err != nil {
		return nil, err
	}
	if end := key.Expires(); !end.IsZero() && !time.Now().Before(end) {
		return nil, fmt.Errorf("%w: key %q expired at %s: make a newer key current", keys.ErrExpired, id, end.UTC().Format(time.RFC3339))
	}
	if !key.For(origin) {
		return nil, fmt.Errorf("%w: key %q is not for queue %q: give the queue a key of its own, or add it to the key's queues", keys.ErrInvalidKey, id, origin)
	}
	return key, nil
}

// epoch returns the salt epoch of a key.
func (c *Cipher) epoch(ctx context.Context, id keys.ID, origin string) (*epoch, error) {
	retired := c.retired.Load()
	key, err := c.sealingKey(ctx, id, origin)
	if err != nil {
		return nil, err
	}
	if e := c.current.Load(); e != nil && e.key == key {
		return e, nil
	}
	sealer, err := envelope.NewSealer(key, string(id), key.SenderID())
	if err != nil {
		return nil, err
	}
	// Two goroutines may both replace it: one salt epoch is then short.
	e := &epoch{key: key, sealer: sealer}
	c.current.Store(e)
	if c.retired.Load() != retired {
		// Perhaps this key: it may still seal this message, and is looked up for the next.
		c.current.CompareAndSwap(e, nil)
	}
	return e, nil
}

// EndEpochs makes the next seal draw a new salt: the process may have been suspended or
// copied.
func (c *Cipher) EndEpochs() {
	if e := c.current.Load(); e != nil {
		e.sealer.EndEpoch()
	}
}

// Decrypt opens m with the key that it names.
func (c *Cipher) Decrypt(ctx context.Context, m envelope.EncryptedMessage, contextData []byte) ([]byte, error) {
	return c.open(ctx, &m, contextData, ofQueue)
}

// domain is one of the two of QRE1 (Section 4.1).
type domain bool

const (
	ofQueue domain = false // messages
	ofApp   domain = true  // what belongs to a queue and is no message
)

func (c *Cipher) open(ctx context.Context, m *envelope.EncryptedMessage, data []byte, of domain) ([]byte, error) {
	key, err := c.openingKey(ctx, m)
	if err != nil {
		return nil, err
	}
	return c.openUnder(key, m, data, of)
}

// openingKey returns the key that m names (qre1, Section 6.1, step 2).
func (c *Cipher) openingKey(ctx context.Context, m *envelope.EncryptedMessage) (*keys.Key, error) {
	id := keys.ID(m.KeyID)
	key, err := GetKey(ctx, c.keys, id)
	if err != nil {
		if !c.told && errors.Is(err, keys.ErrNotFound) {
			c.forget(id)
		}
		return nil, err
	}
	if !key.For(m.Origin) {
		// A holder of another queue's key cannot speak for this one.
		return nil, envelope.ErrAuthenticationFailed
	}
	return key, nil
}

// openUnder opens m with the key that it names.
func (c *Cipher) openUnder(key *keys.Key, m *envelope.EncryptedMessage, data []byte, of domain) (b []byte, err error) {
	if of == ofApp {
		b, err = c.opener.OpenApp(nil, m, key, data)
	} else {
		b, err = c.opener.Open(nil, m, key, data)
	}
	if err == nil {
		key.Confirm()
	}
	if errors.Is(err, keys.ErrSenderKey) {
		// The key of one sender opens no message of another: this receiver lacks the
		// master key, and err says so.
		return nil, fmt.Errorf("%w: %w", keys.ErrNotFound, err)
	}
	if errors.Is(err, keys.ErrDestroyed) {
		// Removed between the look-up and now: as if it had been a moment earlier.
		return nil, keys.ErrNotFound
	}
	return b, err
}

// GetKey looks a key up. It fails with keys.ErrNotFound if the provider is sure that
// there is none, with ctx.Err() if the caller left, and otherwise with ErrKeyProvider.
func GetKey(ctx context.Context, p keys.Provider, id keys.ID) (*keys.Key, error) {
	key, err := p.GetKey(ctx, id)
	switch {
	case err == nil && key != nil && key.ID() == id:
		return key, nil
	case err == nil && key != nil:
		// Under it the message would count as forged.
		return nil, fmt.Errorf("%w: key %q: the provider returned another key", ErrKeyProvider, id)
	case err == nil:
		return nil, fmt.Errorf("%w: key %q: the provider returned neither key nor error", ErrKeyProvider, id)
	case errors.Is(err, keys.ErrNotFound):
		return nil, keys.ErrNotFound
	}
	return nil, ProviderError(ctx, err)
}

// ProviderError is an error of a key provider that could not answer; the context's own
// error passes through.
func ProviderError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w", ErrKeyProvider, err)
}
