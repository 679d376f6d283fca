package keys

import (
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// Size is the length of a secret in bytes, of a master key and of a sender key
// (qre1, Section 3).
const Size = 32

// MaxID bounds an ID in bytes (qre1, Section 2.2), and so a sender ID (Section 2.3).
const MaxID = 64

const (
	// maxQueues bounds Options.Queues.
	maxQueues = 256
	// maxQueue bounds the name of a queue in bytes (qre1, Section 2.4: it is the
	// origin).
	maxQueue = 255
)

// Validate returns nil for an ID of 1 to MaxID bytes of [A-Za-z0-9._:/-], and
// otherwise an error that wraps ErrInvalidKey. The text does not repeat the ID,
// which may come from an attacker.
func (id ID) Validate() error { return validateID(id) }

func validateID[T ID | []byte](id T) error {
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
	// Queues are the names of the queues that the key is for: at most 256, each 1
	// to 255 bytes of UTF-8, none twice, in no order. Empty means any queue.
	Queues []string
}

// validate says what is wrong with o.
func (o *Options) validate() error {
	if !o.Expires.IsZero() && o.Expires.Before(o.Created) {
		return fmt.Errorf("%w: it expires before it was created", ErrInvalidKey)
	}
	if len(o.Queues) > maxQueues {
		return fmt.Errorf("%w: it names %d queues: use at most %d, or none for any queue", ErrInvalidKey, len(o.Queues), maxQueues)
	}
	seen := make(map[string]struct{}, len(o.Queues))
	for i, name := range o.Queues {
		if len(name) < 1 || len(name) > maxQueue || !utf8.ValidString(name) {
			return fmt.Errorf("%w: the name of queue %d of it: use 1 to %d bytes of UTF-8", ErrInvalidKey, i+1, maxQueue)
		}
		if _, ok := seen[name]; ok {
			return fmt.Errorf("%w: it names queue %d twice", ErrInvalidKey, i+1)
		}
		seen[name] = struct{}{}
	}
	return nil
}

// Key is a 256-bit secret with a name: a master key, which seals as any sender and
// opens everything, or a sender key, which seals and opens as its one sender
// (qre1, Section 3). SenderID tells them apart. Neither can be used as the other:
// what a Key derives depends on the sender that it derives for.
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
	sender  string // empty for a master key
	created time.Time
	expires time.Time
	queues  []string     // sorted; nil for any queue
	gone    *atomic.Bool // the material's, so that even a copy of the Key knows
	used    *atomic.Bool // Confirm was called
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

// New returns a master key with a copy of secret, which stays the caller's to
// zero. It fails with ErrInvalidKey when the ID is not valid (ID.Validate), when
// secret is not Size bytes long or is all zeroes, and when o is not valid (see
// Options; a key cannot expire before it was created).
func New(id ID, secret []byte, o *Options) (*Key, error) { return newKey(id, "", secret, o) }

// NewSender returns the sender key of that sender ID with a copy of secret, which is
// what a key file or another program holds of it. The sender ID has the alphabet of
// an ID. It fails as New does, and for an empty or malformed sender ID.
func NewSender(id ID, sender string, secret []byte, o *Options) (*Key, error) {
	if err := validateSender(sender); err != nil {
		return nil, err
	}
	return newKey(id, sender, secret, o)
}

// validateSender holds a sender ID of a sender key against qre1, Section 2.3. The
// empty ID stands for holders of the master key, so no sender key is made for it.
func validateSender(sender string) error {
	if err := ID(sender).Validate(); err != nil {
		return fmt.Errorf("sender ID: %w", err)
	}
	return nil
}

func newKey(id ID, sender string, secret []byte, o *Options) (*Key, error) {
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
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("keys: %s: %w", id, err)
	}
	m := &material{gone: new(atomic.Bool)}
	copy(m.secret[:], secret)
	k := &Key{
		id:     id,
		sender: sender,
		queues: slices.Sorted(slices.Values(o.Queues)),
		// Without the monotonic reading: these times outlive the process.
		created: o.Created.Round(0),
		expires: o.Expires.Round(0),
		gone:    m.gone,
		used:    new(atomic.Bool),
		hold:    m.hold,
		wipe:    m.destroy,
	}
	runtime.AddCleanup(k, (*material).destroy, m)
	return k, nil
}

// Generate returns a master key with a fresh random secret.
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

// SenderID returns the ID of the one sender that a sender key is for, and "" for a
// master key. A receiver needs master keys: with a sender key it opens only what
// that sender sealed.
func (k *Key) SenderID() string { return k.sender }

// Queues returns the names of the queues that the key is for, sorted; nil means
// any queue. The caller owns the slice.
func (k *Key) Queues() []string { return slices.Clone(k.queues) }

// For reports whether the key may be used for the queue of that name: one of
// Queues, or any if there are none.
func (k *Key) For(queue string) bool {
	if len(k.queues) == 0 {
		return true
	}
	_, ok := slices.BinarySearch(k.queues, queue)
	return ok
}

// Alike reports whether both keys have the same ID, sender ID, times and queues.
// Secrets are not compared: Equal does that. Providers keep a *Key while what they
// read is equal and alike, so that what was derived from it stays good.
func (k *Key) Alike(other *Key) bool {
	return k.id == other.id && k.sender == other.sender && k.created.Equal(other.created) && k.expires.Equal(other.expires) &&
		slices.Equal(k.queues, other.queues)
}

// Expired reports whether the key is past its expiry at that time. An expired
// key opens but does not seal; Derive does not look at it, because it cannot
// tell which of the two is meant.
func (k *Key) Expired(at time.Time) bool { return !k.expires.IsZero() && !at.Before(k.expires) }

// Err returns nil while the key is usable, and ErrDestroyed afterwards. It costs
// one atomic load: callers that cache what was derived from a key ask it before
// each use.
func (k *Key) Err() error {
	if k.gone == nil || k.gone.Load() {
		return ErrDestroyed
	}
	return nil
}

// Confirm notes that the secret is the right one: a message opened under it, or was
// sealed. From then on the providers of this package refuse another secret under its ID,
// because one ID names one key for ever. Before, they take it up, so that a wrong secret
// can be corrected without a restart. It costs one atomic load once it was called.
func (k *Key) Confirm() {
	if k.used != nil && !k.used.Load() {
		k.used.Store(true)
	}
}

// Destroy zeroes the secret. It returns once every Derive under way is done and
// the bytes are gone; from its first moment on, no new use begins. Calling it
// again is fine.
func (k *Key) Destroy() {
	if k.wipe != nil {
		k.wipe()
	}
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
