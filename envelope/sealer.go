package envelope

import (
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

// This file seals a plaintext together with a context that is encoded already. What a queue
// binds to its messages is gathered in internal/sealing.

// Limits of a salt epoch (qre1, Section 3.3). Whichever is reached first ends it.
const (
	epochMessages = 1 << 20
	epochBytes    = 1 << 36       // of plaintext: 64 GiB
	epochMillis   = 5 * 60 * 1000 // between the first EncryptedAt and the last
	idleMillis    = 30 * 1000     // from one EncryptedAt to the next: a suspended process, or an image of it, rarely holds an epoch
)

// backlash is by how many milliseconds EncryptedAt may fall behind the latest
// seen before the clock counts as set back: goroutines that read it just before
// they seal overtake each other.
const backlash = 1000

// Sealer seals under one key as one sender. It draws a salt and derives from it
// once for many messages, a salt epoch: at most 2^20 messages, 64 GiB of plaintext
// or 5 minutes by EncryptedAt. An EncryptedAt more than 30 seconds past the latest
// one, or more than 1 second before it, also starts a new one, and so does
// EndEpoch. It is safe for concurrent use.
//
// Time is what EncryptedAt says, because a Sealer has no clock. Messages that are
// sealed anew with an old EncryptedAt therefore start epochs of their own: seal
// them with another Sealer.
type Sealer struct {
	deriver Deriver
	usable  usable // the deriver, asked before each use
	keyID   string
	sender  string
	ids     string // both, by encodeIDs
	current atomic.Pointer[epoch]
	// renewing holds one token, for the goroutine that derives the next epoch. It
	// is not a mutex, because Derive may wait.
	renewing chan struct{}

	mu    sync.Mutex // guards ended, and orders it with what is stored in current; never held across a call
	ended uint64     // calls of EndEpoch
}

// epoch is a salt, what was derived from it, and how much it has served.
type epoch struct {
	*derived
	salt   Salt
	start  int64 // EncryptedAt of the first message
	latest atomic.Int64
	served atomic.Uint64 // one number: an atomic addition costs as much as the encoding of a header
}

// bytesBits is how many low bits of what an epoch has served count bytes; those above
// count messages. Each part can hold its limit, and is never counted beyond it.
const bytesBits = 40

// NewSealer returns a Sealer that seals under d and writes keyID and sender into
// every header. It derives nothing yet, so that a sender key of another sender is
// found by the first Seal. It fails when d is nil, when keyID is not 1 to MaxKeyID
// bytes of [A-Za-z0-9._:/-], and when sender is longer than MaxSender bytes or has
// others.
func NewSealer(d Deriver, keyID, sender string) (*Sealer, error) {
	if d == nil {
		return nil, errors.New("envelope: no Deriver")
	}
	if err := checkID("key ID", keyID, 1); err != nil {
		return nil, fmt.Errorf("envelope: %w", err)
	}
	if err := checkID("sender ID", sender, 0); err != nil {
		return nil, fmt.Errorf("envelope: %w", err)
	}
	return &Sealer{
		deriver: d, usable: usableOf(d), keyID: keyID, sender: sender, ids: encodeIDs(keyID, sender),
		renewing: make(chan struct{}, 1),
	}, nil
}

// KeyID returns the key ID that is written into every header.
func (s *Sealer) KeyID() string { return s.keyID }

// Sender returns the sender ID that is written into every header.
func (s *Sealer) Sender() string { return s.sender }

// EndEpoch makes the next Seal draw a new salt and drops the cipher of the epoch.
// A Seal that is under way may still use it. Callers use it when they find that
// the process was suspended or restored, or that the key was retired.
func (s *Sealer) EndEpoch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended++
	s.current.Store(nil)
}

// ends returns how many epochs were ended.
func (s *Sealer) ends() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended
}

// begin makes e the current epoch, unless one was ended since the salt of e was drawn.
func (s *Sealer) begin(e *epoch, ended uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended == ended {
		s.current.Store(e)
	}
}

// Seal appends the envelope of plaintext to dst. contextData is the encoding of
// the message's context, by AppendContext with h.Bound. Padded, KeyID, Sender,
// Salt and Commitment of h are ignored: they are the Sealer's. Nothing is kept of
// the arguments and h is not changed.
//
// With SealedSize bytes of room in dst it allocates nothing, except at the start
// of a salt epoch.
//
// It fails with ErrEncryptionFailed, which wraps the cause: a field of h that is
// not valid, a Sequence of 0, a plaintext of more than 2^36-32 bytes, dst over
// plaintext, or the error of the Deriver.
func (s *Sealer) Seal(dst []byte, h *Header, plaintext, contextData []byte) ([]byte, error) {
	return s.seal(&task{domainQueue, false, h, contextData, NoPadding}, dst, plaintext)
}

// SealPadded is Seal with padding; NoPadding makes it Seal. The envelope is
// SealedSize(h, p.Size(len(plaintext))) bytes long. It fails as Seal does, and for
// a p that is not valid.
func (s *Sealer) SealPadded(dst []byte, h *Header, plaintext, contextData []byte, p Padding) ([]byte, error) {
	return s.seal(&task{domainQueue, false, h, contextData, p}, dst, plaintext)
}

// SealApp is Seal for uses other than a queue's: what it binds is associatedData,
// in the caller's own encoding. Sequence of h is 0, and so is what goes with it
// (see Header). Only OpenApp opens it, so that no key that serves both uses can be
// made to mint a queue message (qre1, Section 4.3).
func (s *Sealer) SealApp(dst []byte, h *Header, plaintext, associatedData []byte) ([]byte, error) {
	return s.seal(&task{domainApp, true, h, associatedData, NoPadding}, dst, plaintext)
}

// task is what to seal, beside the plaintext.
type task struct {
	domain  string
	direct  bool // by direct use (qre1, Section 4.3)
	header  *Header
	data    []byte // context or associated data
	padding Padding
}

// check refuses a header or padding with which a plaintext of that many bytes
// cannot be sealed.
func (t *task) check(plaintext int) error {
	if err := t.header.checkRest(); err != nil {
		return err
	}
	if t.header.direct() != t.direct {
		if t.direct {
			return errors.New("sequence: set: direct use has none")
		}
		return errors.New("sequence: 0: a message of a queue has one from 1 on")
	}
	if t.padding == NoPadding {
		return nil
	}
	return t.padding.check(int64(plaintext))
}

func (s *Sealer) seal(t *task, dst, plaintext []byte) ([]byte, error) {
	out, err := s.trySeal(t, dst, plaintext)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEncryptionFailed, err)
	}
	return out, nil
}

func (s *Sealer) trySeal(t *task, dst, plaintext []byte) ([]byte, error) {
	if err := t.check(len(plaintext)); err != nil {
		return nil, err
	}
	size := len(plaintext)
	if t.padding != NoPadding {
		size = t.padding.Size(size)
	}
	if err := checkSize("plaintext", int64(size)); err != nil {
		return nil, err
	}
	begin := len(dst)
	body := begin + t.header.size(len(s.ids))
	end := body + NonceSize + size + TagSize
	dst, err := grow(dst, end-begin, plaintext)
	if err != nil {
		return nil, err
	}
	e, err := s.epoch(t.header.EncryptedAt, uint64(size)) //nolint:gosec // G115: not negative
	if err != nil {
		return nil, err
	}
	aad := getScratch()
	aad.begin(t.domain, body-begin)
	at := len(aad.b)
	aad.b = t.header.append(aad.b, body-begin, &sealed{t.padding != NoPadding, s.ids, &e.salt, &e.commitment})
	header := aad.b[at:]
	aad.b = append(aad.b, t.data...)
	if t.padding == NoPadding {
		confine(func() { e.aead.Seal(dst[body:body], nil, plaintext, aad.b) }) //nolint:gosec // G407: it draws the nonce itself
	} else {
		// Padded in its place: the cipher itself moves it behind the nonce.
		padded := dst[body : body+size]
		fill(padded, plaintext)
		confine(func() { e.aead.Seal(padded[:0], nil, padded, aad.b) }) //nolint:gosec // G407
	}
	copy(dst[begin:body], header)
	aad.put()
	return dst[:end], nil
}

// epoch returns an epoch that has room for a message of n bytes sealed at that
// time, and counts the message in it.
func (s *Sealer) epoch(at int64, n uint64) (*epoch, error) {
	if err := s.usable.Err(); err != nil {
		s.EndEpoch() // its cipher is not used again
		return nil, err
	}
	if e := s.current.Load(); e != nil && e.admit(at, n) {
		return e, nil
	}
	return s.renew(at, n)
}

// renew is epoch for a message that the current one has no room for.
func (s *Sealer) renew(at int64, n uint64) (*epoch, error) {
	s.renewing <- struct{}{}
	defer func() { <-s.renewing }()
	// Another may have renewed it meanwhile.
	if e := s.current.Load(); e != nil && e.admit(at, n) {
		return e, nil
	}
	e, ended := &epoch{start: at}, s.ends()
	e.latest.Store(at)
	// Read never fails: it ends the process instead.
	_, _ = rand.Read(e.salt[:])
	var err error
	if e.derived, err = derive(s.deriver, s.keyID, s.sender, &e.salt); err != nil {
		return nil, err
	}
	e.served.Store(1<<bytesBits + n)
	s.begin(e, ended)
	return e, nil
}

// admit counts a message in, or reports that the epoch is over for it.
func (e *epoch) admit(at int64, n uint64) bool {
	if at < e.start || at-e.start > epochMillis {
		return false
	}
	for {
		latest := e.latest.Load()
		if at < latest-backlash || at > latest+idleMillis {
			return false
		}
		if at <= latest || e.latest.CompareAndSwap(latest, at) {
			break
		}
	}
	for {
		served := e.served.Load()
		if served>>bytesBits >= epochMessages || served%(1<<bytesBits)+n > epochBytes {
			return false
		}
		if e.served.CompareAndSwap(served, served+1<<bytesBits+n) {
			return true
		}
	}
}
