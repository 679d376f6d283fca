package sbqueue

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/queue-runtime/queue/driver"
)

// The application properties of the driver. Names that begin with "qrt-" are
// reserved for the library, so none can be an application's.
const (
	propertyID     = "qrt-id"           // our message ID, where the broker's is another
	propertyCount  = "qrt-count"        // deliveries of the messages that this is a copy of
	propertySealed = "qrt-sealed"       // the body is a sealed one
	propertyType   = "qrt-content-type" // a content type that is not ASCII, as AMQP wants it
	propertyQueue  = "qrt-dead-queue"
	propertyAt     = "qrt-dead-at" // RFC 3339, to the millisecond

	traceParent = "traceparent"
	traceState  = "tracestate"
)

// MaxTTL is the longest time to live that the broker can be told of: AMQP counts
// milliseconds in 32 bits (Part 3, Section 3.2.1), and the SDK cuts off what is
// beyond them, so that 50 days became 7 hours.
const MaxTTL = math.MaxUint32 * time.Millisecond

// outgoing returns the SDK's message for m. count is how often those that it is a
// copy of were delivered.
func outgoing(m *driver.Message, count int) (*azservicebus.Message, error) {
	out := &azservicebus.Message{Body: m.Body, ApplicationProperties: make(map[string]any, len(m.Attributes)+3)}
	if out.Body == nil {
		out.Body = []byte{}
	}
	if err := m.CheckAttributes(); err != nil {
		return nil, err
	}
	for name, value := range m.Attributes {
		if name == traceParent || name == traceState || strings.HasPrefix(name, "qrt-") {
			return nil, driver.Errorf(driver.Invalid, "attribute %q is reserved", name)
		}
		out.ApplicationProperties[name] = value
	}
	for _, name := range [...]string{traceParent, traceState} {
		if v := m.Trace[name]; v != "" {
			out.ApplicationProperties[name] = v
		}
	}
	id := &m.DedupID
	if *id == "" {
		id = &m.ID
	}
	if len(*id) > 128 {
		return nil, driver.Errorf(driver.Invalid, "the message ID has %d bytes, Service Bus takes 128", len(*id))
	}
	out.MessageID = id
	if *id != m.ID {
		out.ApplicationProperties[propertyID] = m.ID
	}
	if count > 0 {
		out.ApplicationProperties[propertyCount] = int64(count)
	}
	if m.Sealed {
		out.ApplicationProperties[propertySealed] = true
	}
	if m.SessionID != "" {
		out.SessionID = &m.SessionID
	}
	if m.CorrelationID != "" {
		out.CorrelationID = &m.CorrelationID
	}
	switch {
	case m.ContentType == "":
	case isASCII(m.ContentType):
		out.ContentType = &m.ContentType
	default:
		out.ApplicationProperties[propertyType] = m.ContentType
	}
	switch {
	case m.TTL <= 0:
	case m.TTL <= MaxTTL:
		// A part of a millisecond would be cut off, and none means for ever.
		ttl := (m.TTL + time.Millisecond - 1).Truncate(time.Millisecond)
		out.TimeToLive = &ttl
	case !m.Sealed:
		return nil, driver.Errorf(driver.Invalid, "a TTL of %s: Service Bus takes %s at most, but for sealed messages", m.TTL, MaxTTL)
	default:
		// The receiver ends its life, by what the envelope says.
	}
	if !m.NotBefore.IsZero() {
		at := m.NotBefore.UTC()
		out.ScheduledEnqueueTime = &at
	}
	return out, nil
}

// incoming makes d, which is empty, the delivery of a message from the SDK.
func incoming(d *driver.Delivery, m *azservicebus.ReceivedMessage, queue string, dead bool) {
	d.ID, d.Body, d.Count = m.MessageID, m.Body, int(m.DeliveryCount)
	if m.SequenceNumber != nil {
		d.BrokerID = strconv.FormatInt(*m.SequenceNumber, 10)
	}
	d.SessionID = value(m.SessionID)
	d.CorrelationID = value(m.CorrelationID)
	d.ContentType = value(m.ContentType)
	if m.EnqueuedTime != nil {
		d.EnqueuedAt = *m.EnqueuedTime
	}
	if m.LockedUntil != nil {
		d.LockedUntil = *m.LockedUntil
	}
	if m.TimeToLive != nil {
		d.TTL = *m.TimeToLive
	}
	if m.ScheduledEnqueueTime != nil {
		d.NotBefore = *m.ScheduledEnqueueTime
	}
	var from, at string
	for name, v := range m.ApplicationProperties {
		switch name {
		case propertyID:
			d.ID = asText(v)
		case propertyCount:
			if n, ok := v.(int64); ok && n > 0 && n < 1<<31 {
				d.Count += int(n)
			}
		case propertySealed:
			d.Sealed, _ = v.(bool)
		case propertyType:
			d.ContentType = asText(v)
		case propertyQueue:
			from = asText(v)
		case propertyAt:
			at = asText(v)
		case traceParent, traceState:
			if d.Trace == nil {
				d.Trace = make(map[string]string, 2)
			}
			d.Trace[name] = asText(v)
		case "DeadLetterReason", "DeadLetterErrorDescription":
			// The broker's, also in m's own fields.
		default:
			if d.Attributes == nil {
				d.Attributes = make(map[string]string, len(m.ApplicationProperties))
			}
			d.Attributes[name] = asText(v)
		}
	}
	if dead {
		why := &driver.DeadLetter{Reason: value(m.DeadLetterReason), Description: value(m.DeadLetterErrorDescription), Queue: queue}
		if from != "" {
			why.Queue = from
		}
		if t, err := time.Parse(time.RFC3339Nano, at); err == nil {
			why.At = t
		}
		switch why.Reason {
		case "MaxDeliveryCountExceeded":
			why.Reason = "max_deliveries"
		case "TTLExpiredException":
			why.Reason = "expired"
		}
		d.DeadLetter = why
	}
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// asText is an application property as an attribute: other senders may set other
// types than strings.
func asText(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano)
	}
	return fmt.Sprint(v)
}

// size is what m counts against a transfer: its parts, and what AMQP adds, not
// less than the encoder makes of it (AMQP 1.0, Part 1, Section 1.6; a string has
// up to 5 bytes beside its own).
func size(m *driver.Message) int {
	const frame, field = 256, 8
	n := frame + len(m.Body) + 2*len(m.ID) + len(m.DedupID) + len(m.SessionID) + len(m.CorrelationID) + len(m.ContentType) + 5*field
	for _, all := range []map[string]string{m.Attributes, m.Trace} {
		for name, v := range all {
			n += len(name) + len(v) + 2*field
		}
	}
	return n
}
