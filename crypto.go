package queue

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/replay"
)

// Defaults of [CryptoConfig].
const (
	DefaultMaxMessageAge = 5 * time.Minute
	DefaultMaxClockSkew  = 30 * time.Second
	DefaultNonceTTL      = 10 * time.Minute
	DefaultRetryWindow   = 24 * time.Hour
)

// QueueRetention as MaxMessageAge stands for the time that the broker keeps a
// message. It is resolved when a Receiver opens, from the driver's
// Capabilities; where the broker cannot tell, the Receiver must name a value.
const QueueRetention time.Duration = math.MaxInt64

// most bounds the durations of a CryptoConfig, so that no sum of them overflows:
// the largest is MaxMessageAge + 3 x MaxClockSkew, and 292 years fit.
const most = 50 * 365 * 24 * time.Hour

// PlaintextPolicy says what a receiver does with a message that is not sealed.
type PlaintextPolicy uint8

// The policies.
const (
	Allow          PlaintextPolicy = iota // deliver, and log a WARN
	AllowWithAlert                        // deliver, log an ERROR, count plaintext_allowed
	Reject                                // dead-letter with ErrUnencryptedMessage
)

func (p PlaintextPolicy) String() string {
	switch p {
	case Allow:
		return "allow"
	case AllowWithAlert:
		return "allow_with_alert"
	case Reject:
		return "reject"
	}
	return "invalid"
}

// CryptoConfig says whether senders seal and what receivers accept. The zero
// value sends plaintext and accepts it with a warning: the first of the four
// phases of docs/migration.md. [Strict] is the last.
type CryptoConfig struct {
	// Enabled makes senders seal. Receivers that have keys open sealed messages
	// in any case.
	Enabled bool

	// PlaintextPolicy is for receivers; zero is Allow.
	PlaintextPolicy PlaintextPolicy

	// MaxMessageAge is how old a message may be when it is first received,
	// counted from its sealing or its NotBefore, whichever is later. It must
	// exceed the backlog that an outage can build: what waits longer is
	// dead-lettered. 0 means 5 minutes.
	MaxMessageAge time.Duration

	// MaxClockSkew is how far any two clocks of senders and receivers may
	// differ. 0 means 30 seconds.
	MaxClockSkew time.Duration

	// TrackNonces turns replay protection on, in Options.Nonces.
	TrackNonces bool

	// NonceTTL is how long a handled message is remembered. At least
	// MaxMessageAge + 3 x MaxClockSkew; 0 means the larger of that and 10
	// minutes.
	NonceTTL time.Duration

	// RetryWindow is how long after its first delivery a message may be
	// delivered again although it is older than MaxMessageAge. It needs
	// TrackNonces. 0 means 24 hours.
	RetryWindow time.Duration

	// AcceptedOrigins are queue names, beside the receiver's own, that a message
	// may have been sealed for: after a queue was renamed, for instance. A broker
	// can then deliver one message in both queues; to have it handled once, give
	// their receivers one ReceiverOptions.Group.
	AcceptedOrigins []string

	// InsecureSkipFreshness accepts messages of any age, so that a broker can
	// replay all it ever stored. It cannot be combined with TrackNonces.
	InsecureSkipFreshness bool
}

// resolve checks c and fills in the defaults. retention is the broker's, 0 where
// it cannot tell; a sender passes -1.
func (c CryptoConfig) resolve(retention time.Duration) (CryptoConfig, error) {
	for _, d := range [...]struct {
		name  string
		value time.Duration
	}{
		{"MaxMessageAge", c.MaxMessageAge},
		{"MaxClockSkew", c.MaxClockSkew},
		{"NonceTTL", c.NonceTTL},
		{"RetryWindow", c.RetryWindow},
	} {
		if d.value < 0 {
			return c, invalidOption("CryptoConfig.%s is negative", d.name)
		}
	}
	if c.PlaintextPolicy > Reject {
		return c, invalidOption("CryptoConfig.PlaintextPolicy %d is unknown", c.PlaintextPolicy)
	}
	if c.TrackNonces && c.InsecureSkipFreshness {
		return c, invalidOption("CryptoConfig.TrackNonces needs freshness: a nonce is remembered only as long as its message can be fresh")
	}
	if c.MaxClockSkew == 0 {
		c.MaxClockSkew = DefaultMaxClockSkew
	}
	if c.RetryWindow == 0 {
		c.RetryWindow = DefaultRetryWindow
	}
	switch {
	case c.MaxMessageAge == 0:
		c.MaxMessageAge = DefaultMaxMessageAge
	case c.MaxMessageAge == QueueRetention && retention < 0:
		return c, nil // a sender: age and nonces are not its business
	case c.MaxMessageAge == QueueRetention && retention == 0:
		return c, invalidOption("CryptoConfig.MaxMessageAge is QueueRetention, and this broker does not tell how long it keeps messages: name a duration that exceeds the longest backlog you want to survive")
	case c.MaxMessageAge == QueueRetention:
		c.MaxMessageAge = retention
	}
	if c.MaxMessageAge > most || c.MaxClockSkew > most {
		return c, invalidOption("CryptoConfig: MaxMessageAge and MaxClockSkew are at most 50 years")
	}
	c.RetryWindow = min(c.RetryWindow, most)
	least := c.MaxMessageAge + 3*c.MaxClockSkew
	switch {
	case c.NonceTTL == 0:
		c.NonceTTL = max(DefaultNonceTTL, least)
	case c.NonceTTL < least:
		return c, invalidOption("CryptoConfig.NonceTTL is %s: a message can be replayed after its nonce is forgotten; it must be at least MaxMessageAge + 3 x MaxClockSkew = %s", c.NonceTTL, least)
	}
	return c, nil
}

// checkStore refuses a nonce store that forgets too early.
func (c *CryptoConfig) checkStore(s replay.NonceStore) error {
	if !c.TrackNonces {
		return nil
	}
	if s == nil {
		return invalidOption("CryptoConfig.TrackNonces is set and Options.Nonces is nil")
	}
	need := max(c.NonceTTL, c.RetryWindow)
	if r := s.Retention(); r != 0 && r < need {
		return invalidOption("the nonce store keeps records for %s; NonceTTL and RetryWindow need %s", r, need)
	}
	return nil
}

// Strict returns the options for production: sealing on, plaintext rejected, and
// replays rejected by store, which must lie outside the broker's reach.
// MaxMessageAge is the broker's own retention; set Crypto.MaxMessageAge where the
// broker cannot tell it.
func Strict(p keys.Provider, store replay.NonceStore) *Options {
	return &Options{
		Keys:   p,
		Nonces: store,
		Crypto: CryptoConfig{
			Enabled:         true,
			PlaintextPolicy: Reject,
			MaxMessageAge:   QueueRetention,
			TrackNonces:     true,
		},
	}
}

// CryptoProvider seals and opens. The default is [AESGCM]; one that keeps keys
// in hardware can take its place. Implementations are safe for concurrent use.
type CryptoProvider interface {
	// Encrypt builds the envelope's header from h (whose KeyID, Salt and
	// Commitment it sets) and seals plaintext under key id, authenticating the
	// header and contextData (qre1, Section 4).
	Encrypt(ctx context.Context, id keys.ID, h envelope.Header, plaintext, contextData []byte) (envelope.EncryptedMessage, error)

	// Decrypt opens m. It fails with ErrAuthenticationFailed for any reason that
	// lies in the message, with ErrKeyNotFound when the key does not exist, and
	// with ErrKeyProvider when that could not be found out.
	Decrypt(ctx context.Context, m envelope.EncryptedMessage, contextData []byte) ([]byte, error)
}

// AESGCM is the CryptoProvider that implements QRE1 with keys from a
// keys.Provider. It is safe for concurrent use.
type AESGCM struct {
	keys    keys.Provider
	opener  *envelope.Opener
	current atomic.Pointer[sealing]
}

// sealing is the key that was sealed with last, and its salt epoch.
type sealing struct {
	key    *keys.Key
	sealer *envelope.Sealer
}

// NewAESGCM returns a CryptoProvider over p.
func NewAESGCM(p keys.Provider) (*AESGCM, error) {
	if p == nil {
		return nil, invalidOption("a key provider is needed")
	}
	return &AESGCM{keys: p, opener: envelope.NewOpener(nil)}, nil
}

// Encrypt seals under key id. It fails with ErrEncryptionFailed, which wraps the
// cause.
func (a *AESGCM) Encrypt(ctx context.Context, id keys.ID, h envelope.Header, plaintext, contextData []byte) (envelope.EncryptedMessage, error) {
	b, _, err := a.appendSealed(ctx, nil, id, &h, plaintext, contextData)
	if err != nil {
		return envelope.EncryptedMessage{}, err
	}
	return envelope.Parse(b)
}

// appendSealed appends the sealed envelope to dst and returns the key it used.
func (a *AESGCM) appendSealed(ctx context.Context, dst []byte, id keys.ID, h *envelope.Header, plaintext, contextData []byte) ([]byte, *keys.Key, error) {
	key, err := getKey(ctx, a.keys, id)
	if err != nil {
		return nil, nil, err
	}
	s, err := a.sealerFor(key)
	if err != nil {
		return nil, nil, err
	}
	b, err := s.sealer.Seal(dst, h, plaintext, contextData)
	return b, key, err
}

// sealerFor returns the Sealer of a key, with its salt epoch.
func (a *AESGCM) sealerFor(key *keys.Key) (*sealing, error) {
	if e := key.Expires(); !e.IsZero() && !time.Now().Before(e) {
		return nil, fmt.Errorf("%w: key %q expired at %s: make a newer key current", ErrKeyExpired, key.ID(), e.UTC().Format(time.RFC3339))
	}
	if s := a.current.Load(); s != nil && s.key == key {
		return s, nil
	}
	sealer, err := envelope.NewSealer(key, string(key.ID()), key.SenderID())
	if err != nil {
		return nil, err
	}
	// Two goroutines may both replace it: one salt epoch is then short.
	s := &sealing{key: key, sealer: sealer}
	a.current.Store(s)
	return s, nil
}

// sealApp seals what is no message, in the envelope's other domain.
func (a *AESGCM) sealApp(key *keys.Key, h *envelope.Header, plaintext, data []byte) ([]byte, error) {
	s, err := a.sealerFor(key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEncryptionFailed, err)
	}
	return s.sealer.SealApp(nil, h, plaintext, data)
}

// Decrypt opens m with the key that it names.
func (a *AESGCM) Decrypt(ctx context.Context, m envelope.EncryptedMessage, contextData []byte) ([]byte, error) {
	key, err := getKey(ctx, a.keys, keys.ID(m.KeyID))
	if err != nil {
		if errors.Is(err, ErrKeyNotFound) {
			a.opener.Forget(m.KeyID)
		}
		return nil, err
	}
	b, err := a.opener.Open(nil, &m, key, contextData)
	if errors.Is(err, keys.ErrDestroyed) {
		// Removed between the look-up and now: as if it had been a moment earlier.
		return nil, &KeyNotFoundError{KeyID: keys.ID(m.KeyID)}
	}
	return b, err
}

// getKey looks a key up and sorts the failure: not there, could not tell, or the
// caller's context.
func getKey(ctx context.Context, p keys.Provider, id keys.ID) (*keys.Key, error) {
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
		return nil, &KeyNotFoundError{KeyID: id}
	}
	return nil, providerError(ctx, err)
}

func providerError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w", ErrKeyProvider, err)
}
