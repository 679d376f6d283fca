package envelope

import (
	"crypto/rand"
	"errors"
	"fmt"
	"sync/atomic"
)

// Limits of a salt epoch (qre1, Section 3.2). Whichever is reached first ends it.
const (
	epochMessages = 1 << 20
	epochBytes    = 1 << 36       // of plaintext: 64 GiB
	epochMillis   = 5 * 60 * 1000 // between the first EncryptedAt and the last
)

// backlash is by how many milliseconds EncryptedAt may fall behind the latest
// seen before the clock counts as set back: goroutines that read it just before
// they seal overtake each other.
const backlash = 1000

// Sealer seals under one key. It draws a salt and derives from it once for many
// messages, a salt epoch: at most 2^20 messages, 64 GiB of plaintext or 5 minutes
// by EncryptedAt; a clock that is set back starts a new one. It is safe for
// concurrent use.
type Sealer struct {
	deriver Deriver
	keyID   string
	current atomic.Pointer[epoch]
	// renewing holds one token, for who derives the next epoch. It is not a
	// mutex, because Derive may wait.
	renewing chan struct{}
}

// epoch is a salt, what was derived from it, and how much it has served.
type epoch struct {
	*derived
	salt     Salt
	start    int64 // EncryptedAt of the first message
	latest   atomic.Int64
	messages atomic.Uint64
	bytes    atomic.Uint64
}

// NewSealer returns a Sealer that seals under d and writes keyID into every
// header. It derives nothing yet. It fails when d is nil and when keyID is not 1
// to MaxKeyID bytes of [A-Za-z0-9._:/-].
func NewSealer(d Deriver, keyID string) (*Sealer, error) {
	if d == nil {
		return nil, errors.New("envelope: no Deriver")
	}
	if err := checkKeyID(keyID); err != nil {
		return nil, fmt.Errorf("envelope: %w", err)
	}
	return &Sealer{deriver: d, keyID: keyID, renewing: make(chan struct{}, 1)}, nil
}

// Seal appends the envelope of plaintext to dst. contextData is the encoding of
// the message's context, by AppendContext with h.Bound. KeyID, Salt and
// Commitment of h are ignored: they are the Sealer's. Nothing is kept of the
// arguments and h is not changed.
//
// With SealedSize bytes of room in dst it allocates nothing, except at the start
// of a salt epoch.
//
// It fails with ErrEncryptionFailed, which wraps the cause: a field of h that is
// not valid, a plaintext of more than 2^36-32 bytes, dst over plaintext, or the
// error of the Deriver.
func (s *Sealer) Seal(dst []byte, h *Header, plaintext, contextData []byte) ([]byte, error) {
	return s.seal(domainQueue, dst, h, plaintext, contextData)
}

// SealApp is Seal for uses other than a queue's: what it binds is associatedData,
// in the caller's own encoding. Only OpenApp opens it, so that no key that serves
// both uses can be made to mint a queue message (qre1, Section 4.3).
func (s *Sealer) SealApp(dst []byte, h *Header, plaintext, associatedData []byte) ([]byte, error) {
	return s.seal(domainApp, dst, h, plaintext, associatedData)
}

func (s *Sealer) seal(domain string, dst []byte, h *Header, plaintext, data []byte) ([]byte, error) {
	out, err := s.trySeal(domain, dst, h, plaintext, data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEncryptionFailed, err)
	}
	return out, nil
}

func (s *Sealer) trySeal(domain string, dst []byte, h *Header, plaintext, data []byte) ([]byte, error) {
	if err := h.checkRest(); err != nil {
		return nil, err
	}
	if err := checkSize("plaintext", int64(len(plaintext))); err != nil {
		return nil, err
	}
	begin := len(dst)
	body := begin + h.size(s.keyID)
	end := body + NonceSize + len(plaintext) + TagSize
	dst, err := grow(dst, end-begin, plaintext)
	if err != nil {
		return nil, err
	}
	e, err := s.epoch(h.EncryptedAt, uint64(len(plaintext)))
	if err != nil {
		return nil, err
	}
	aad := getScratch()
	aad.begin(domain, body-begin)
	at := len(aad.b)
	aad.b = h.append(aad.b, s.keyID, &e.salt, &e.commitment)
	header := aad.b[at:]
	aad.b = append(aad.b, data...)
	confine(func() { e.aead.Seal(dst[body:body], nil, plaintext, aad.b) }) //nolint:gosec // G407: it draws the nonce itself
	copy(dst[begin:body], header)
	aad.put()
	return dst[:end], nil
}

// epoch returns an epoch that has room for a message of n bytes sealed at that
// time, and counts the message in it.
func (s *Sealer) epoch(at int64, n uint64) (*epoch, error) {
	if err := usable(s.deriver); err != nil {
		s.current.Store(nil) // its cipher is not used again
		return nil, err
	}
	if e := s.current.Load(); e != nil && e.admit(at, n) {
		return e, nil
	}
	s.renewing <- struct{}{}
	defer func() { <-s.renewing }()
	// Another may have renewed it meanwhile.
	if e := s.current.Load(); e != nil && e.admit(at, n) {
		return e, nil
	}
	e := &epoch{start: at}
	e.latest.Store(at)
	// Read never fails: it ends the process instead.
	_, _ = rand.Read(e.salt[:])
	var err error
	if e.derived, err = derive(s.deriver, s.keyID, &e.salt); err != nil {
		return nil, err
	}
	e.messages.Store(1)
	e.bytes.Store(n)
	s.current.Store(e)
	return e, nil
}

// admit counts a message in, or reports that the epoch is over for it.
func (e *epoch) admit(at int64, n uint64) bool {
	if at < e.start || at-e.start > epochMillis {
		return false
	}
	for {
		latest := e.latest.Load()
		if at < latest-backlash {
			return false
		}
		if at <= latest || e.latest.CompareAndSwap(latest, at) {
			break
		}
	}
	return e.messages.Add(1) <= epochMessages && e.bytes.Add(n) <= epochBytes
}
