package envelope

import (
	"crypto/subtle"
	"errors"
)

// OpenerOptions are the options of NewOpener.
type OpenerOptions struct {
	// Entries is how many ciphers are kept, one for each key, sender and salt, of
	// about 1.1 KiB each. A sender that seals all the time uses one in 5 minutes,
	// one that seals now and then one for each message. 0 means DefaultEntries;
	// below zero, none is kept.
	Entries int
}

// DefaultEntries is what OpenerOptions.Entries 0 means: about 18 MiB, once so many
// salts were met, which are all ciphers of the last hour for 1,365 senders.
const DefaultEntries = 16384

// Opener opens envelopes. It keeps the ciphers of the salts that it met, bounded,
// and only once a message was authenticated with them: forgeries neither fill nor
// empty the cache. It is safe for concurrent use.
//
// The cache holds the Derivers that its entries came from. Forget drops them.
type Opener struct {
	cache *cache
}

// NewOpener returns an Opener. o may be nil.
func NewOpener(o *OpenerOptions) *Opener {
	entries := DefaultEntries
	if o != nil && o.Entries != 0 {
		entries = max(o.Entries, 0)
	}
	return &Opener{cache: newCache(entries)}
}

// Open appends the plaintext of m to dst. d is the key that m.KeyID names, and
// contextData the encoding of the context that came with the message, by
// AppendContext with m.Bound. When it returns no error, the fields of m, as Parse
// set them, and the context are as they were sealed. Padding is taken off.
//
// A header of direct use is refused: Sequence is 1 or more when it opens.
//
// dst must not lie over the envelope: opening never writes into it, so that what
// does not open can be kept as it came. With room for m.Ciphertext in dst it
// allocates nothing, otherwise as much; except for a salt that is not in the
// cache.
//
// It fails with ErrAuthenticationFailed and nothing else for any reason that lies
// in the message, ErrInvalidEnvelope for an m put together by hand from fields
// that are not valid, and with the wrapped error of d, which says nothing
// of the message.
func (o *Opener) Open(dst []byte, m *EncryptedMessage, d Deriver, contextData []byte) ([]byte, error) {
	return o.open(domainQueue, dst, m, d, contextData)
}

// OpenApp is Open for what SealApp sealed. It refuses a header with a Sequence.
func (o *Opener) OpenApp(dst []byte, m *EncryptedMessage, d Deriver, associatedData []byte) ([]byte, error) {
	return o.open(domainApp, dst, m, d, associatedData)
}

// Forget drops the ciphers of a retired key, for all senders. An Open of that key
// that is under way does not bring its own back.
func (o *Opener) Forget(keyID string) {
	o.cache.remove(func(e *entry) bool { return e.key.keyID == keyID })
}

func (o *Opener) open(domain string, dst []byte, m *EncryptedMessage, d Deriver, data []byte) ([]byte, error) {
	if d == nil {
		return nil, errors.New("envelope: no Deriver")
	}
	if m.raw == nil {
		parsed, err := Parse(m.Bytes())
		if err != nil {
			return nil, err
		}
		m = &parsed
	}
	if m.direct() != (domain == domainApp) {
		return nil, ErrAuthenticationFailed // sealed for the other use (qre1, Section 6.1)
	}
	sealed := m.raw[len(m.head):] // nonce, ciphertext, tag
	removals := o.cache.removals.Load()
	k, hit, err := o.key(m, d)
	if err != nil {
		return nil, err
	}
	// Which key it is comes before anything that is done with it (qre1,
	// Section 6.1).
	if subtle.ConstantTimeCompare(k.commitment[:], m.Commitment[:]) != 1 {
		return nil, ErrAuthenticationFailed
	}
	// By its nonce a message is remembered, so it is the nonce of the very bytes.
	if string(m.Nonce[:]) != string(sealed[:NonceSize]) {
		return nil, ErrAuthenticationFailed
	}
	n := len(sealed) - NonceSize - TagSize
	if dst, err = grow(dst, n, m.raw); err != nil {
		return nil, err
	}
	aad := getScratch()
	aad.begin(domain, len(m.head))
	aad.b = append(aad.b, m.head...)
	aad.b = append(aad.b, data...)
	confine(func() { _, err = k.aead.Open(dst[len(dst):], nil, sealed, aad.b) })
	aad.put()
	if err != nil {
		return nil, ErrAuthenticationFailed
	}
	if !hit {
		o.cache.add(k, m, d, removals)
	}
	opened := dst[len(dst) : len(dst)+n]
	if m.head[flagsAt]&flagPadded != 0 {
		return withoutPadding(dst, opened)
	}
	return dst[:len(dst)+n], nil
}

// withoutPadding appends to dst the plaintext within opened, which lies behind it
// and is authentic. What else was decrypted is zeroed.
func withoutPadding(dst, opened []byte) ([]byte, error) {
	plaintext, ok := unpad(opened)
	if !ok {
		clear(opened)
		return nil, ErrAuthenticationFailed
	}
	n := copy(opened, plaintext)
	clear(opened[n:])
	return dst[:len(dst)+n], nil
}

// key returns what d gives for the salt of m, and whether it was in the cache.
func (o *Opener) key(m *EncryptedMessage, d Deriver) (k *derived, hit bool, err error) {
	if k := o.cache.get(m, d); k != nil {
		if err := k.usable.Err(); err != nil {
			o.cache.remove(func(e *entry) bool { return e.deriver == d })
			return nil, false, err
		}
		return k, true, nil
	}
	k, err = derive(d, m.KeyID, m.Sender, &m.Salt)
	return k, false, err
}
