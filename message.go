package queue

import (
	"crypto/rand"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/keys"
)

// MaxIDBytes bounds a message ID, session ID, correlation ID and content type, in
// bytes, on every broker. A broker may have a lower limit.
const MaxIDBytes = 128

// Limits of the attributes of a message on every broker. A broker may have lower ones.
const (
	maxAttributes     = 64  // qre1, Section 2.8
	maxAttributeBytes = 255 // of an attribute's name
)

// Message is what an application sends. Everything in it is bound to the sealed
// body: a broker that changes any of it makes the message unreadable. Only Body
// is secret.
type Message struct {
	// ID identifies the message to its receiver, at most MaxIDBytes bytes of
	// UTF-8; empty means that the sender makes one of 130 random bits. Retries
	// of one business event share an ID.
	ID string

	// SessionID groups messages that must stay in order, at most MaxIDBytes
	// bytes; empty means none.
	SessionID string

	CorrelationID string // at most MaxIDBytes bytes; empty means none
	ContentType   string // a media type (RFC 9110, Section 8.3), at most MaxIDBytes bytes; empty means none

	// Attributes are cleartext metadata, at most 64. Names are 1 to 255 bytes of
	// UTF-8; "traceparent", "tracestate" and names that begin with "qrt-" are
	// reserved.
	Attributes map[string]string

	// Body has, once it is sealed, at most Capabilities().MaxBody bytes. Nil and empty
	// are the same.
	Body []byte

	// NotBefore is when the message may be delivered first, to the millisecond;
	// zero means at once. A broker without a timer refuses it with
	// errors.ErrUnsupported.
	NotBefore time.Time

	// TTL is how long after the send, or after NotBefore if that is later,
	// the message may still be delivered, to the millisecond; 0 means as long as
	// the queue keeps it. Receivers enforce it whatever the broker does.
	TTL time.Duration

	// DedupID is the identity by which a broker with Capabilities().Dedup drops
	// repeats, at most MaxIDBytes bytes; empty means ID. Receivers do not see it.
	DedupID string
}

// Received is a message with its origin and its history at the broker. On a delivery with
// Encrypted set, all fields of the embedded Message are authentic.
type Received struct {
	Message

	Queue    string // the queue that it was received from
	Origin   string // the queue that its sender sealed it for; empty unless Encrypted
	BrokerID string // the broker's own identity of the stored message

	// Count is how often the broker says it has delivered the message, this time
	// included.
	Count int

	EnqueuedAt  time.Time // as the broker says, by its clock; zero if unknown
	EncryptedAt time.Time // by the sender's clock, authentic; zero unless Encrypted

	Encrypted bool
	KeyID     keys.ID // the key that it was sealed under; empty unless Encrypted
	// Sender is the ID of the sender key that sealed it, and authentic. Empty if it was
	// sealed with the master key, or not sealed.
	Sender string

	// Gap is true if the message that its sender sent before this one in the same
	// session was not received yet: it was dropped, held back, or is on its way. Always
	// false without a replay store.
	Gap bool

	// Unauthenticated are attributes that the sender did not bind: they were added on
	// the way. Nil unless Encrypted.
	Unauthenticated map[string]string

	trace map[string]string
}

// SendResult is the outcome of sending one message.
type SendResult struct {
	MessageID string // the message's ID, or the one that Send made
	BrokerID  string // empty if the broker tells none at send
	Encrypted bool
	KeyID     keys.ID // the key that it was sealed under; empty unless Encrypted
	Err       error   // nil means the broker has confirmed that it holds the message
}

// validate checks m against the limits that hold on every broker. Its errors
// name the field, never a value.
func (m *Message) validate() error {
	if m == nil {
		return driver.Errorf(driver.Invalid, "nil message")
	}
	for _, f := range [...]struct{ name, value string }{
		{"ID", m.ID},
		{"SessionID", m.SessionID},
		{"CorrelationID", m.CorrelationID},
		{"ContentType", m.ContentType},
		{"DedupID", m.DedupID},
	} {
		if len(f.value) > MaxIDBytes {
			return driver.Errorf(driver.Invalid, "%s has %d bytes, the limit is %d", f.name, len(f.value), MaxIDBytes)
		}
		if !utf8.ValidString(f.value) {
			return driver.Errorf(driver.Invalid, "%s is not valid UTF-8", f.name)
		}
	}
	if len(m.Attributes) > maxAttributes {
		return driver.Errorf(driver.Invalid, "%d attributes, the limit is %d", len(m.Attributes), maxAttributes)
	}
	for name, value := range m.Attributes {
		switch {
		case name == "":
			return driver.Errorf(driver.Invalid, "an attribute has an empty name")
		case len(name) > maxAttributeBytes:
			return driver.Errorf(driver.Invalid, "the name of an attribute has %d bytes, the limit is %d", len(name), maxAttributeBytes)
		case !utf8.ValidString(name) || !utf8.ValidString(value):
			return driver.Errorf(driver.Invalid, "attribute %q is not valid UTF-8", name)
		case reserved(name):
			return driver.Errorf(driver.Invalid, "attribute %q: names that begin with \"qrt-\", traceparent and tracestate are reserved", name)
		}
	}
	if m.TTL < 0 {
		return driver.Errorf(driver.Invalid, "TTL is negative")
	}
	if !m.NotBefore.IsZero() && (m.NotBefore.Before(firstTime) || m.NotBefore.After(lastTime)) {
		return driver.Errorf(driver.Invalid, "NotBefore lies outside of the years 1970 to 9999")
	}
	return nil
}

// The first and the last NotBefore that an envelope can say (qre1, Section 2.5).
var (
	firstTime = time.UnixMilli(1)
	lastTime  = time.UnixMilli(envelope.MaxTime)
)

func reserved(name string) bool {
	return strings.HasPrefix(name, "qrt-") || name == "traceparent" || name == "tracestate"
}

// into fills in what a driver is given for m under that ID. Body and attributes are shared:
// a driver neither changes nor retains them.
func (m *Message) into(d *driver.Message, id string) {
	*d = driver.Message{
		ID:            id,
		SessionID:     m.SessionID,
		CorrelationID: m.CorrelationID,
		ContentType:   m.ContentType,
		Attributes:    m.Attributes,
		Body:          m.Body,
		NotBefore:     m.NotBefore,
		TTL:           m.TTL,
		DedupID:       m.DedupID,
	}
	if d.DedupID == "" {
		d.DedupID = id
	}
}

// newID returns 130 random bits in base32.
func newID() string { return rand.Text() }

// checkName refuses a queue name that cannot be an origin (qre1, Section 2.4);
// what a broker refuses beyond that is the driver's.
func checkName(queue string) error { return driver.CheckName(queue) }
