package queue

import (
	"crypto/rand"
	"maps"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/keys"
)

// Limits of a message that hold on every broker. A broker may have lower ones.
const (
	MaxIDBytes        = 128 // of a message, session or correlation ID, and of a content type
	MaxAttributes     = 64  // qre1, Section 2.8
	MaxAttributeBytes = 255 // of an attribute's name
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

	CorrelationID string // at most MaxIDBytes bytes
	ContentType   string // a media type (RFC 9110, Section 8.3), at most MaxIDBytes bytes

	// Attributes are cleartext metadata, at most MaxAttributes. Names are 1 to
	// MaxAttributeBytes bytes of UTF-8; "traceparent", "tracestate" and those
	// that begin with "qrt-" are reserved.
	Attributes map[string]string

	Body []byte

	// NotBefore is when the message may be delivered first, to the millisecond;
	// zero means at once. A broker without a timer refuses it with
	// errors.ErrUnsupported.
	NotBefore time.Time

	// TTL is how long after the send, or after NotBefore where that is later,
	// the message may still be delivered, to the millisecond; 0 means as long as
	// the queue keeps it. Receivers enforce it whatever the broker does.
	TTL time.Duration

	// DedupID is the identity by which a broker that can drops repeats; empty
	// means ID. It is for the broker alone: receivers do not see it.
	DedupID string
}

// Received is a message and what is known of its way. On a delivery with
// Encrypted set, the embedded Message is authentic in all its fields.
type Received struct {
	Message

	Queue    string // the queue that it was received from
	Origin   string // the queue that its sender sealed it for; empty unless Encrypted
	BrokerID string // the broker's own identity of the stored message

	// Count is how often the broker has delivered the message, this time
	// included. It is the broker's word.
	Count int

	EnqueuedAt  time.Time // by the broker's clock and word; zero where unknown
	EncryptedAt time.Time // by the sender's clock, authentic; zero unless Encrypted

	Encrypted bool
	KeyID     keys.ID // the key that it was sealed under
	// Sender is who sealed it, authentic: the ID of its sender key, empty if it was
	// sealed with the master key. Empty unless Encrypted.
	Sender string

	// Gap: the message that its sender sent before it in the same session was not
	// received yet: it was dropped, held back, or is on its way. Only with a replay store.
	Gap bool

	// Unauthenticated are attributes that the sender did not bind: somebody
	// added them on the way. Nil unless Encrypted.
	Unauthenticated map[string]string

	trace map[string]string
}

// SendResult is the outcome of sending one message.
type SendResult struct {
	MessageID string // the message's, or the one that was made
	BrokerID  string // empty where the broker tells none at send
	Encrypted bool
	KeyID     keys.ID
	Err       error // nil: the broker has confirmed that it holds the message
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
	if len(m.Attributes) > MaxAttributes {
		return driver.Errorf(driver.Invalid, "%d attributes, the limit is %d", len(m.Attributes), MaxAttributes)
	}
	for name, value := range m.Attributes {
		switch {
		case name == "":
			return driver.Errorf(driver.Invalid, "an attribute has an empty name")
		case len(name) > MaxAttributeBytes:
			return driver.Errorf(driver.Invalid, "the name of an attribute has %d bytes, the limit is %d", len(name), MaxAttributeBytes)
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

// driverMessage returns what a driver is given for m under that ID. The body is
// shared, the attributes are copied: a driver may add its own.
func (m *Message) driverMessage(id string) *driver.Message {
	d := &driver.Message{
		ID:            id,
		SessionID:     m.SessionID,
		CorrelationID: m.CorrelationID,
		ContentType:   m.ContentType,
		Attributes:    maps.Clone(m.Attributes),
		Body:          m.Body,
		NotBefore:     m.NotBefore,
		TTL:           m.TTL,
		DedupID:       m.DedupID,
	}
	if d.DedupID == "" {
		d.DedupID = id
	}
	return d
}

// newID returns 130 random bits in base32.
func newID() string { return rand.Text() }

// checkName refuses a queue name that cannot be an origin (qre1, Section 2.4);
// what a broker refuses beyond that is the driver's.
func checkName(queue string) error { return driver.CheckName(queue) }
