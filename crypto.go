package queue

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/internal/sealing"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/observe"
	"github.com/queue-runtime/queue/replay"
)

// Defaults of [CryptoConfig].
const (
	defaultMaxMessageAge = 5 * time.Minute
	defaultMaxClockSkew  = 30 * time.Second
	defaultRetryWindow   = 24 * time.Hour
)

// QueueRetention as MaxMessageAge stands for the time that the broker keeps a
// message. It is resolved when a Receiver opens, from the driver's
// Capabilities; if the broker cannot tell, the Receiver must name a value.
const QueueRetention time.Duration = math.MaxInt64

// maxHorizon bounds the durations of a CryptoConfig, so that no sum of them overflows:
// the largest is MaxMessageAge + 3 x MaxClockSkew, and a time.Duration holds 292 years.
const maxHorizon = 50 * 365 * 24 * time.Hour

// maxRetention bounds the retention that QueueRetention takes from a driver, because the
// broker must not decide what is fresh: 14 days, the longest that the services keep a
// message by default. Nor can the broker make it less than defaultMaxMessageAge.
const maxRetention = 14 * 24 * time.Hour

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
	// whether it is set or not.
	Enabled bool

	// PlaintextPolicy is for receivers; zero is Allow.
	PlaintextPolicy PlaintextPolicy

	// MaxMessageAge is how old a message may be when it is first received,
	// counted from its sealing or its NotBefore, whichever is later. Older messages
	// are dead-lettered, so it must exceed the longest backlog that an outage can
	// build. 0 means 5 minutes; with TrackReplays it means QueueRetention if the broker
	// tells how long it keeps messages, since the replay store rejects old copies.
	MaxMessageAge time.Duration

	// MaxClockSkew is how far any two clocks of senders and receivers may
	// differ. 0 means 30 seconds.
	MaxClockSkew time.Duration

	// TrackReplays turns replay protection on, in Options.ReplayStore.
	TrackReplays bool

	// RetryWindow is how long after its first delivery a message may be
	// delivered again although it is older than MaxMessageAge. It needs
	// TrackReplays. 0 means 24 hours.
	RetryWindow time.Duration

	// AcceptedOrigins are queue names, beside the receiver's own, that a message
	// may have been sealed for: after a queue was renamed, for instance. A broker
	// can then deliver one message in both queues; to have it handled once, give
	// their receivers one ReceiverOptions.Group.
	AcceptedOrigins []string

	// AcceptedVersions are the versions of the envelope that senders may use, those that
	// this library does not know yet included: a message of such a version waits for
	// ReceiverOptions.RotationHorizon, so that an upgrade reaches this receiver first. Of
	// any other version it is dead-lettered at once. Nil means version 1 alone.
	AcceptedVersions []uint8

	// InsecureSkipFreshness accepts messages of any age, so that a broker can replay
	// every message that it ever stored. It cannot be combined with TrackReplays.
	InsecureSkipFreshness bool

	// Loosen lets a SenderOptions.Crypto or ReceiverOptions.Crypto be less strict than the
	// Client's: without Enabled, with a PlaintextPolicy that accepts more, without
	// TrackReplays, or with InsecureSkipFreshness. Without Loosen that is
	// ErrInvalidOptions, because a configuration that is there to set one duration
	// would otherwise turn all protection off. It has no meaning in Options.Crypto.
	Loosen bool
}

// loosened says what a sender or receiver with c would do less strictly than one with
// base; "" if nothing.
func (c *CryptoConfig) loosened(base *CryptoConfig, role observe.Role) string {
	switch sends := role == observe.Sender; {
	case c.Loosen:
		return ""
	case sends && base.Enabled && !c.Enabled:
		return "it has no Enabled: messages would be sent in plaintext"
	case sends:
		return ""
	case c.PlaintextPolicy < base.PlaintextPolicy:
		return "its PlaintextPolicy is " + c.PlaintextPolicy.String() + " and the Client's is " + base.PlaintextPolicy.String()
	case base.TrackReplays && !c.TrackReplays:
		return "it has no TrackReplays: a broker could have messages handled again"
	case c.InsecureSkipFreshness && !base.InsecureSkipFreshness:
		return "it has InsecureSkipFreshness"
	}
	return ""
}

// resolveSender checks c and fills in the defaults that do not depend on a broker. An
// age of QueueRetention stays: senders judge no ages.
func (c CryptoConfig) resolveSender() (CryptoConfig, error) {
	err := driver.CheckSettings([]driver.Setting{
		{Name: "MaxMessageAge", Value: int64(c.MaxMessageAge)},
		{Name: "MaxClockSkew", Value: int64(c.MaxClockSkew)},
		{Name: "RetryWindow", Value: int64(c.RetryWindow)},
	})
	if err != nil {
		return c, invalidOption("CryptoConfig.%v", err)
	}
	switch {
	case c.PlaintextPolicy > Reject:
		return c, invalidOption("CryptoConfig.PlaintextPolicy %d is unknown", c.PlaintextPolicy)
	case c.TrackReplays && c.InsecureSkipFreshness:
		return c, invalidOption("CryptoConfig.TrackReplays needs freshness: a store remembers a message only as long as it can be fresh")
	}
	if len(c.AcceptedVersions) == 0 {
		c.AcceptedVersions = []uint8{envelope.Version1}
	}
	if c.MaxClockSkew == 0 {
		c.MaxClockSkew = defaultMaxClockSkew
	}
	if c.RetryWindow == 0 {
		c.RetryWindow = defaultRetryWindow
	}
	if c.MaxMessageAge == 0 && c.TrackReplays {
		c.MaxMessageAge = QueueRetention
	}
	if c.MaxMessageAge == 0 {
		c.MaxMessageAge = defaultMaxMessageAge
	}
	if c.MaxMessageAge == QueueRetention {
		return c, nil
	}
	return c.resolveAges()
}

// Resolve checks c and returns it with the defaults filled in, for a receiver whose
// broker keeps messages for retention; 0 means that the broker does not tell. It fails
// with ErrInvalidOptions.
func (c CryptoConfig) Resolve(retention time.Duration) (CryptoConfig, error) {
	named := c.MaxMessageAge == QueueRetention // else it is a default
	c, err := c.resolveSender()
	if err != nil || c.MaxMessageAge != QueueRetention {
		return c, err
	}
	if retention <= 0 && !named {
		c.MaxMessageAge = defaultMaxMessageAge
		return c.resolveAges()
	}
	if retention <= 0 {
		return c, invalidOption("CryptoConfig.MaxMessageAge is QueueRetention, and this broker does not tell how long it keeps messages: name a duration that exceeds the longest backlog you want to survive")
	}
	c.MaxMessageAge = min(max(retention, defaultMaxMessageAge), maxRetention)
	return c.resolveAges()
}

// resolveAges checks and fills in the values that depend on MaxMessageAge.
func (c CryptoConfig) resolveAges() (CryptoConfig, error) {
	if c.MaxMessageAge > maxHorizon || c.MaxClockSkew > maxHorizon {
		return c, invalidOption("CryptoConfig: MaxMessageAge and MaxClockSkew are at most 50 years")
	}
	c.RetryWindow = min(c.RetryWindow, maxHorizon)
	return c, nil
}

// checkStore refuses to track replays without a store.
func (c *CryptoConfig) checkStore(s replay.Store) error {
	if c.TrackReplays && s == nil {
		return invalidOption("CryptoConfig.TrackReplays is set and Options.ReplayStore is nil")
	}
	return nil
}

// Strict returns the options for production: sealing on, plaintext rejected, and
// replays rejected by store, which must lie outside the broker's reach.
// MaxMessageAge is the broker's own retention; set Crypto.MaxMessageAge if the
// broker cannot tell it. p may be nil if Options.KeysFor is set afterwards, which gives
// each queue keys of its own. A program that only sends needs no store: see
// [StrictSender].
func Strict(p keys.Provider, store replay.Store) *Options {
	return &Options{
		Keys:        p,
		ReplayStore: store,
		Crypto: CryptoConfig{
			Enabled:         true,
			PlaintextPolicy: Reject,
			MaxMessageAge:   QueueRetention,
			TrackReplays:    true,
		},
	}
}

// StrictSender returns the options of [Strict] for a program that only sends, and so needs
// no replay store. Its Client opens no Receiver.
func StrictSender(p keys.Provider) *Options {
	o := Strict(p, nil)
	o.Crypto.TrackReplays = false
	o.sendsOnly = true
	return o
}

// CryptoProvider seals and opens. The default is [AESGCM]; one that keeps keys
// in hardware can take its place. Implementations are safe for concurrent use.
type CryptoProvider interface {
	// Encrypt builds the envelope's header from h (whose KeyID, Salt and
	// Commitment it sets) and seals plaintext under key id, authenticating the
	// header and contextData (qre1, Section 4).
	Encrypt(ctx context.Context, id keys.ID, h envelope.Header, plaintext, contextData []byte) (envelope.EncryptedMessage, error)

	// Decrypt opens m. It fails with ErrAuthenticationFailed for any reason that
	// lies in the message, with ErrKeyNotFound if the key does not exist, and with
	// ErrKeyProvider if the provider could not tell.
	Decrypt(ctx context.Context, m envelope.EncryptedMessage, contextData []byte) ([]byte, error)
}

// AESGCM is the CryptoProvider that implements QRE1 with keys from a
// keys.Provider. It is safe for concurrent use.
type AESGCM struct{ cipher *sealing.Cipher }

// NewAESGCM returns a CryptoProvider over p.
func NewAESGCM(p keys.Provider) (*AESGCM, error) {
	if p == nil {
		return nil, invalidOption("a key provider is needed")
	}
	return &AESGCM{sealing.NewCipher(p)}, nil
}

// Encrypt seals under key id. It fails with ErrEncryptionFailed, which wraps the
// cause, with ErrKeyNotFound, ErrKeyExpired or ErrKeyProvider.
func (a *AESGCM) Encrypt(ctx context.Context, id keys.ID, h envelope.Header, plaintext, contextData []byte) (envelope.EncryptedMessage, error) {
	return a.cipher.Encrypt(ctx, id, h, plaintext, contextData)
}

// Decrypt opens m with the key that it names. It fails as the interface says.
func (a *AESGCM) Decrypt(ctx context.Context, m envelope.EncryptedMessage, contextData []byte) ([]byte, error) {
	return a.cipher.Decrypt(ctx, m, contextData)
}

// publicError is a failure of package sealing as callers of this package see it.
func publicError(f *sealing.Failure) error {
	switch {
	case f == nil:
		return nil
	case f.Reason == driver.ReasonKeyNotFound:
		e := &KeyNotFoundError{KeyID: f.KeyID}
		if errors.Is(f.Err, keys.ErrSenderKey) {
			e.Err = f.Err
		}
		return e
	}
	return f.Err
}
