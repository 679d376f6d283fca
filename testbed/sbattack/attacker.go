// Package sbattack changes what the emulator of Azure Service Bus stores, as an
// operator of the broker could. It knows how package sbqueue maps a message to
// AMQP without using the driver's code.
package sbattack

import (
	"context"
	"fmt"
	"time"

	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/testbed/sbemulator"
)

// Attacker reads and changes the messages of an emulator. It implements
// drivertest.Attacker and is safe for concurrent use.
type Attacker struct{ server *sbemulator.Server }

// New returns an attacker of s.
func New(s *sbemulator.Server) *Attacker { return &Attacker{s} }

// Read returns the messages of a queue that are due and that no receiver holds.
func (a *Attacker) Read(ctx context.Context, queue string) ([]driver.Message, error) {
	stored, err := a.waiting(ctx, queue)
	out := make([]driver.Message, len(stored))
	for i := range stored {
		out[i] = decode(&stored[i])
	}
	return out, err
}

// A queue is at rest when no message was locked at restLooks looks in a row. The
// SDK's receivers have credit left after a call has ended, and give back what
// arrives until it is used up. maxLooks bounds the wait to three seconds.
const (
	restLooks    = 5
	maxLooks     = 150
	lookInterval = 20 * time.Millisecond
)

// waiting returns what Read decodes, once the queue is at rest.
func (a *Attacker) waiting(ctx context.Context, queue string) ([]sbemulator.Message, error) {
	still := 0
	for look := 1; ; look++ {
		all, err := a.server.Messages(queue)
		if err != nil {
			return nil, err
		}
		var out []sbemulator.Message
		still++
		for _, m := range all {
			switch {
			case m.Locked:
				still = 0
			case m.ScheduledFor.IsZero():
				out = append(out, m)
			}
		}
		if still == restLooks || look == maxLooks {
			return out, nil
		}
		if !backoff.Sleep(ctx, lookInterval) {
			return nil, ctx.Err()
		}
	}
}

// Rewrite replaces the messages that Read returns.
func (a *Attacker) Rewrite(ctx context.Context, queue string, f func([]driver.Message) []driver.Message) error {
	stored, err := a.waiting(ctx, queue)
	if err != nil {
		return err
	}
	before := make([]driver.Message, len(stored))
	for i := range stored {
		before[i] = decode(&stored[i])
		if err := a.server.Remove(queue, stored[i].SequenceNumber); err != nil {
			return err
		}
	}
	after := f(before)
	for i := range after {
		if _, err := a.server.Insert(queue, encode(&after[i])); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// DeadLetters returns the dead letters of a queue, and the cause of each.
func (a *Attacker) DeadLetters(_ context.Context, queue string) ([]driver.Message, []driver.DeadLetter, error) {
	stored, err := a.server.Messages(queue + "/$DeadLetterQueue")
	if err != nil {
		return nil, nil, err
	}
	out := make([]driver.Message, len(stored))
	why := make([]driver.DeadLetter, len(stored))
	for i := range stored {
		out[i] = decode(&stored[i])
		properties := stored[i].ApplicationProperties
		why[i] = driver.DeadLetter{Queue: queue, Reason: text(properties["DeadLetterReason"]), Description: text(properties["DeadLetterErrorDescription"])}
		if why[i].Reason == "MaxDeliveryCountExceeded" {
			why[i].Reason = "max_deliveries"
		}
	}
	return out, why, nil
}

func text(v any) string {
	s, ok := v.(string)
	if !ok && v != nil {
		return fmt.Sprint(v)
	}
	return s
}

// brokerProperties are application properties that the broker or the driver sets.
var brokerProperties = map[string]bool{
	"traceparent": true, "tracestate": true, "DeadLetterReason": true, "DeadLetterErrorDescription": true,
	"qrt-dead-queue": true, "qrt-dead-at": true, "qrt-count": true,
}

func decode(m *sbemulator.Message) driver.Message {
	d := driver.Message{ID: m.MessageID, CorrelationID: m.CorrelationID, ContentType: m.ContentType, Body: m.Body}
	if m.SessionID != nil {
		d.SessionID = *m.SessionID
	}
	for name, v := range m.ApplicationProperties {
		switch {
		case name == "qrt-id":
			d.ID = text(v)
		case name == "qrt-content-type":
			d.ContentType = text(v)
		case name == "qrt-sealed":
			d.Sealed = v == true
		case !brokerProperties[name]:
			if d.Attributes == nil {
				d.Attributes = make(map[string]string)
			}
			d.Attributes[name] = text(v)
		}
	}
	return d
}

func encode(m *driver.Message) *sbemulator.Message {
	e := &sbemulator.Message{MessageID: m.ID, CorrelationID: m.CorrelationID, ContentType: m.ContentType, Body: m.Body, ApplicationProperties: map[string]any{}}
	if e.Body == nil {
		e.Body = []byte{}
	}
	if m.SessionID != "" {
		session := m.SessionID
		e.SessionID = &session
	}
	for name, v := range m.Attributes {
		e.ApplicationProperties[name] = v
	}
	if m.Sealed {
		e.ApplicationProperties["qrt-sealed"] = true
	}
	return e
}
