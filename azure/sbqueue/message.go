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
	propertyID     = "qrt-id"           // our message ID, if the broker's is another
	propertyCount  = "qrt-count"        // deliveries of the messages that this is a copy of
	propertySealed = "qrt-sealed"       // the body is a sealed one
	propertyType   = "qrt-content-type" // a content type that is not ASCII, as AMQP wants it
	propertyQueue  = "qrt-dead-queue"
	propertyAt     = "qrt-dead-at" // RFC 3339, to the millisecond

	// What the broker writes why it lies there into a dead letter as.
	propertyReason      = "DeadLetterReason"
	propertyDescription = "DeadLetterErrorDescription"

	traceParent = "traceparent"
	traceState  = "tracestate"
)

// MaxTTL is the longest time to live that the broker can be told of: AMQP counts
// milliseconds in 32 bits (Part 3, Section 3.2.1), and the SDK cuts off what is
// beyond them, so that 50 days became 7 hours.
const MaxTTL = math.MaxUint32 * time.Millisecond

// outgoing returns the SDK's message for m. If m was received from Service Bus, what
// m's fields still say as they did at receipt goes out as it came.
func outgoing(m *driver.Message) (*azservicebus.AMQPAnnotatedMessage, error) {
	if err := m.CheckAttributes(); err != nil {
		return nil, err
	}
	id := m.DedupID
	if id == "" {
		id = m.ID
	}
	if len(id) > driver.MaxID {
		return nil, driver.Errorf(driver.Invalid, "the message ID has %d bytes, Service Bus takes %d", len(id), driver.MaxID)
	}
	out := forwarded(m)
	out.Properties.MessageID = id
	own := out.ApplicationProperties
	for name, value := range m.Attributes {
		if isReserved(name) {
			return nil, driver.Errorf(driver.Invalid, "attribute %q is reserved: choose another name", name)
		}
		if v, there := own[name]; !there || asText(v) != value {
			own[name] = value
		}
	}
	for _, name := range [...]string{traceParent, traceState} {
		if v := m.Trace[name]; v != "" {
			own[name] = v
		}
	}
	if id != m.ID {
		own[propertyID] = m.ID
	}
	if m.Sealed {
		own[propertySealed] = true
	}
	setString(&out.Properties.GroupID, m.SessionID)
	if was := out.Properties.CorrelationID; was == nil || asText(was) != m.CorrelationID {
		out.Properties.CorrelationID = nil
		if m.CorrelationID != "" {
			out.Properties.CorrelationID = m.CorrelationID
		}
	}
	out.Properties.ContentType = nil
	if isASCII(m.ContentType) {
		setString(&out.Properties.ContentType, m.ContentType)
	} else {
		own[propertyType] = m.ContentType
	}
	if err := setTTL(out, m); err != nil {
		return nil, err
	}
	if !m.NotBefore.IsZero() {
		out.MessageAnnotations[annotationSchedule] = m.NotBefore.UTC()
	}
	return out, checkProperties(own)
}

// setTTL has the broker end the message's life as m says, if it can be told so.
func setTTL(out *azservicebus.AMQPAnnotatedMessage, m *driver.Message) error {
	switch {
	case m.TTL <= 0:
	case m.TTL <= MaxTTL:
		if out.Header == nil {
			out.Header = new(azservicebus.AMQPAnnotatedMessageHeader)
		}
		// A part of a millisecond would be cut off, and none means for ever.
		out.Header.TTL = (m.TTL + time.Millisecond - 1).Truncate(time.Millisecond)
	case !m.Sealed:
		return driver.Errorf(driver.Invalid, "a TTL of %s: Service Bus takes %s at most, but for sealed messages", m.TTL, MaxTTL)
	default:
		// The receiver ends its life, by what the envelope says.
	}
	return nil
}

// Limits of the application properties of a message (Service Bus quotas).
const (
	maxProperty   = 32 << 10
	maxProperties = 64 << 10
)

// checkProperties refuses what the broker would refuse together with the rest of a
// batch.
func checkProperties(all map[string]any) error {
	sum := 0
	for name, v := range all {
		n := len(name)
		switch v := v.(type) {
		case string:
			n += len(v)
		case []byte:
			n += len(v)
		default:
			n += 16 // no other simple type is longer
		}
		if n > maxProperty {
			return driver.NewTooLarge("attribute", n, maxProperty)
		}
		sum += n
	}
	if sum > maxProperties {
		return driver.NewTooLarge("attributes", sum, maxProperties)
	}
	return nil
}

// isReserved reports whether an attribute cannot have that name, because the driver,
// the library or the broker gives it a meaning.
func isReserved(name string) bool {
	switch name {
	case traceParent, traceState, propertyReason, propertyDescription:
		return true
	}
	return strings.HasPrefix(name, "qrt-")
}

// setString sets an optional field; "" clears it.
func setString(field **string, value string) {
	*field = nil
	if value != "" {
		*field = &value
	}
}

// incoming makes d, which is empty, the delivery of a message from the SDK.
func incoming(d *driver.Delivery, m *azservicebus.ReceivedMessage, queue string, dead bool) {
	d.ID, d.Body, d.Count = m.MessageID, m.Body, int(m.DeliveryCount)
	d.CorrelationID = value(m.CorrelationID)
	if raw := m.RawAMQPMessage; raw != nil {
		d.Received = raw
		d.Body, d.Undecodable = bodyOf(raw)
		if p := raw.Properties; p != nil { // of any type that AMQP has for them
			d.ID, d.CorrelationID = asText(p.MessageID), asText(p.CorrelationID)
		}
	}
	if m.SequenceNumber != nil {
		d.BrokerID = strconv.FormatInt(*m.SequenceNumber, 10)
	}
	d.SessionID = value(m.SessionID)
	if d.ID == "" {
		d.ID = d.BrokerID
	}
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
		if dead && (name == propertyReason || name == propertyDescription) {
			continue // the broker's, and in m's own fields
		}
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

// asText is a property as a string: other senders may set other types. Bytes stay the
// bytes that they are.
func asText(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case []byte:
		return string(v)
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
