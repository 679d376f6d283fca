package keys

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Size is the length of a key's secret in bytes (qre1, Section 3).
const Size = 32

// MaxID bounds an ID in bytes (qre1, Section 2.2).
const MaxID = 64

// Validate returns nil for an ID of 1 to MaxID bytes of [A-Za-z0-9._:/-], and
// otherwise an error that wraps ErrInvalidKey. The text does not repeat the ID,
// which may come from an attacker.
func (id ID) Validate() error {
	if len(id) < 1 || len(id) > MaxID {
		return fmt.Errorf("keys: %w: an ID of %d bytes: use 1 to %d", ErrInvalidKey, len(id), MaxID)
	}
	for i := range len(id) {
		switch c := id[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '.' || c == '_' || c == ':' || c == '/' || c == '-':
		default:
			return fmt.Errorf("keys: %w: byte %d of the ID: use [A-Za-z0-9._:/-]", ErrInvalidKey, i)
		}
	}
	return nil
}

// Options are what may be said of a key. A nil *Options is the zero value.
type Options struct {
	// Created is when the key was made. Zero means unknown for New, and now
	// for Generate.
	Created time.Time
	// Expires is from when on the key seals nothing any more; it goes on
	// opening. Zero means never.
	Expires time.Time
}

// Key is a 256-bit secret with a name.
//
// It is safe for concurrent use and must not be copied. No verb of fmt, no slog
// handler and no encoder of the standard library shows a byte of the secret,
// however deep the Key lies in a value: the bytes are held by a closure, which
// reflection cannot enter.
//
// The bytes are zeroed by Destroy, and when the Key becomes unreachable. Go
// cannot promise more: the runtime may have copied registers and stacks that
// held them, and an AES key schedule derived from them lives until it is
// collected. Built with GOEXPERIMENT=runtimesecret, derivation runs in
// runtime/secret.Do, which erases those too.
//
// The zero Key holds nothing and behaves as a destroyed one.
type Key struct {
	_       [0]sync.Mutex // not copyable: go vet says so
	id      ID
	created time.Time
	expires time.Time
	gone    *atomic.Bool // the material's, so that even a copy of the Key knows
	hold    func(func(secret *[Size]byte) error) error
	wipe    func()
}

// material is the secret. It is reachable only through the closures of a Key
// and from its cleanup, never from a field that reflection can follow.
type material struct {
	gone   *atomic.Bool
	mu     sync.RWMutex // readers use secret; the writer zeroes it
	secret [Size]byte
}

// hold runs f with the secret, which f must not keep. Destroy waits for it.
func (m *material) hold(f func(*[Size]byte) error) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.gone.Load() {
		return ErrDestroyed
	}
	return f(&m.secret)
}

// destroy refuses new users at once, waits for those under way, then zeroes.
func (m *material) destroy() {
	m.gone.Store(true)
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.secret[:])
}

// New returns a key with a copy of secret, which stays the caller's to zero. It
// fails with ErrInvalidKey when the ID is not valid (ID.Validate), when secret
// is not Size bytes long or is all zeroes, and when the key would expire before
// it was created.
func New(id ID, secret []byte, o *Options) (*Key, error) {
	if o == nil {
		o = new(Options)
	}
	if err := id.Validate(); err != nil {
		return nil, err
	}
	if len(secret) != Size {
		return nil, fmt.Errorf("keys: %w: %s: a secret of %d bytes: use %d", ErrInvalidKey, id, len(secret), Size)
	}
	if subtle.ConstantTimeCompare(secret, make([]byte, Size)) == 1 {
		return nil, fmt.Errorf("keys: %w: %s: the secret is all zeroes", ErrInvalidKey, id)
	}
	if !o.Expires.IsZero() && !o.Created.IsZero() && o.Expires.Before(o.Created) {
		return nil, fmt.Errorf("keys: %w: %s: it expires before it was created", ErrInvalidKey, id)
	}
	m := &material{gone: new(atomic.Bool)}
	copy(m.secret[:], secret)
	k := &Key{
		id: id,
		// Without the monotonic reading: these times outlive the process.
		created: o.Created.Round(0),
		expires: o.Expires.Round(0),
		gone:    m.gone,
		hold:    m.hold,
		wipe:    m.destroy,
	}
	runtime.AddCleanup(k, (*material).destroy, m)
	return k, nil
}

// Generate returns a key with a fresh random secret.
func Generate(id ID, o *Options) (*Key, error) {
	var opts Options
	if o != nil {
		opts = *o
	}
	if opts.Created.IsZero() {
		opts.Created = time.Now()
	}
	secret := make([]byte, Size)
	defer clear(secret)
	// crypto/rand.Read fails never: it ends the process instead.
	_, _ = rand.Read(secret)
	return New(id, secret, &opts)
}

// ID returns the key's name.
func (k *Key) ID() ID { return k.id }

// Created returns when the key was made; zero if unknown.
func (k *Key) Created() time.Time { return k.created }

// Expires returns from when on the key seals nothing any more; zero if never.
func (k *Key) Expires() time.Time { return k.expires }

// Expired reports whether the key is past its expiry at that time. An expired
// key opens but does not seal; Derive does not look at it, because it cannot
// tell which of the two is meant.
func (k *Key) Expired(at time.Time) bool { return !k.expires.IsZero() && !at.Before(k.expires) }

// Err returns nil while the key is usable, and ErrDestroyed afterwards. It costs
// one atomic load: who caches what was derived from a key asks it before each
// use.
func (k *Key) Err() error {
	if k.gone == nil || k.gone.Load() {
		return ErrDestroyed
	}
	return nil
}

// Destroy zeroes the secret. It returns once every Derive under way is done and
// the bytes are gone; from its first moment on, no new use begins. Calling it
// again is fine.
func (k *Key) Destroy() {
	if k.wipe != nil {
		k.wipe()
	}
}

// Derive returns HKDF-Expand (RFC 5869, Section 2.3) with SHA-256, the secret as
// the pseudorandom key, info, and a length of 64 bytes. The secret is uniform,
// so that the extract step is not needed (RFC 5869, Section 3.3). It fails with
// ErrDestroyed only.
func (k *Key) Derive(info []byte) (okm [64]byte, err error) {
	err = k.with(func(secret *[Size]byte) error {
		return confine(func() error {
			out, err := hkdf.Expand(sha256.New, secret[:], string(info), len(okm))
			if err != nil {
				return fmt.Errorf("keys: derive from %s: %w", k.id, err)
			}
			copy(okm[:], out)
			clear(out)
			return nil
		})
	})
	return okm, err
}

// with runs f with the secret, which f must not keep.
func (k *Key) with(f func(*[Size]byte) error) error {
	if k.hold == nil {
		return fmt.Errorf("keys: %w", ErrDestroyed)
	}
	err := k.hold(f)
	// Else the cleanup could zero the secret of a key whose last use this is.
	runtime.KeepAlive(k)
	if err == ErrDestroyed { //nolint:errorlint // set in hold, a line above
		return fmt.Errorf("keys: %w: %s", ErrDestroyed, k.id)
	}
	return err
}
