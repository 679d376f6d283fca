package sbqueue

import (
	"maps"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/go-amqp"

	"github.com/queue-runtime/queue/driver"
)

// This file passes messages on. A copy that the driver makes, for an abandon with a
// delay or for a redrive, is made of the message as it was received and not of what
// the application was given: so nothing is lost that driver.Message has no field for,
// and nothing is sent that an application changed in its delivery.

// annotationSchedule is when the broker makes a message available.
const annotationSchedule = "x-opt-scheduled-enqueue-time"

// brokerAnnotations are those that the broker writes; a sender's are passed on.
var brokerAnnotations = map[any]bool{
	annotationSchedule:              true,
	"x-opt-locked-until":            true,
	"x-opt-sequence-number":         true,
	"x-opt-enqueued-time":           true,
	"x-opt-enqueue-sequence-number": true,
	"x-opt-deadletter-source":       true,
	"x-opt-message-state":           true,
}

// bodyOf returns the body of a message: its data sections joined, or a value that is
// text or bytes. Anything else is undecodable, and comes as AMQP encodes it, so that
// it is neither lost nor taken for an empty body. A null value is one.
func bodyOf(raw *azservicebus.AMQPAnnotatedMessage) (body []byte, undecodable bool) {
	switch b := raw.Body; {
	case len(b.Data) == 1:
		return b.Data[0], false
	case len(b.Data) > 1:
		for _, section := range b.Data {
			body = append(body, section...)
		}
		return body, false
	case b.Value == nil && b.Sequence == nil:
		return nil, false
	}
	switch v := raw.Body.Value.(type) {
	case string:
		return []byte(v), false
	case []byte:
		return v, false
	}
	section := amqp.Message{Value: raw.Body.Value, Sequence: raw.Body.Sequence}
	body, err := section.MarshalBinary()
	if err != nil || len(body) == 0 {
		body = []byte("an AMQP body of another kind than data, text and bytes")
	}
	return body, true
}

// forwarded returns what goes out for m apart from m's fields: nothing for a message
// that was made here, and for one that was received from Service Bus its properties,
// annotations and body as they came, as far as m's fields do not say otherwise.
func forwarded(m *driver.Message) *azservicebus.AMQPAnnotatedMessage {
	out := &azservicebus.AMQPAnnotatedMessage{
		ApplicationProperties: make(map[string]any, len(m.Attributes)+3),
		Body:                  azservicebus.AMQPAnnotatedMessageBody{Data: [][]byte{m.Body}},
		MessageAnnotations:    make(map[any]any, 1),
		Properties:            new(azservicebus.AMQPAnnotatedMessageProperties),
	}
	raw, ok := m.Received.(*azservicebus.AMQPAnnotatedMessage)
	if !ok {
		return out
	}
	if body, _ := bodyOf(raw); string(body) == string(m.Body) {
		out.Body = raw.Body
	}
	out.Footer = raw.Footer
	for name, v := range raw.MessageAnnotations {
		if !brokerAnnotations[name] {
			out.MessageAnnotations[name] = v
		}
	}
	for name, v := range raw.ApplicationProperties {
		if _, kept := m.Attributes[name]; kept {
			out.ApplicationProperties[name] = v
		}
	}
	if h := raw.Header; h != nil {
		out.Header = &azservicebus.AMQPAnnotatedMessageHeader{Durable: h.Durable, Priority: h.Priority}
	}
	if p := raw.Properties; p != nil {
		*out.Properties = *p
		out.Properties.AbsoluteExpiryTime = nil // the broker's, out of the TTL
	}
	return out
}

// postponed returns the copy of a delivery for an abandon with a delay: the message as
// it was received, with the count of its deliveries, under another identity, since the
// broker could drop it as a repeat. bytes is its size.
func (s *source) postponed(r *receipt, delay time.Duration) (out *azservicebus.AMQPAnnotatedMessage, bytes int, err error) {
	var was driver.Delivery
	incoming(&was, r.m, s.q.name, s.dead)
	again := was.Clone()
	again.NotBefore = time.Now().Add(delay)
	if r.copyID == "" {
		r.copyID = copyID(&was)
	}
	again.DedupID = r.copyID // the same at each attempt, so that a double is known
	if again.TTL > 0 {
		again.TTL = max(again.TTL-s.age(r), time.Second)
	}
	maps.DeleteFunc(again.Attributes, func(name, _ string) bool { return isReserved(name) })
	if out, err = outgoing(&again); err != nil {
		return nil, 0, err
	}
	for name := range was.Attributes { // those of other senders, which outgoing refuses
		if isReserved(name) {
			out.ApplicationProperties[name] = r.m.ApplicationProperties[name]
		}
	}
	out.ApplicationProperties[propertyCount] = int64(r.Count)
	return out, size(&again), nil
}

// age is how long ago the message of r was enqueued: what the broker's clock counted
// until it was locked, and the own one since.
func (s *source) age(r *receipt) time.Duration {
	since := time.Since(r.received)
	if r.m.LockedUntil == nil || r.m.EnqueuedTime == nil {
		return since
	}
	return max(0, r.m.LockedUntil.Sub(*r.m.EnqueuedTime)-s.q.lock.duration) + since
}
