package cli

import (
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/cmd/qrt/internal/display"
	"github.com/queue-runtime/queue/deadletter"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/keys"
)

// messageReport is a message in JSON, one a line in streams. If Encrypted is set, all
// fields are authentic except those that the broker fills in.
type messageReport struct {
	Queue           string            `json:"queue"`
	MessageID       string            `json:"message_id"`
	SessionID       string            `json:"session_id,omitempty"`
	CorrelationID   string            `json:"correlation_id,omitempty"`
	ContentType     string            `json:"content_type,omitempty"`
	Attributes      map[string]string `json:"attributes,omitempty"`
	Unauthenticated map[string]string `json:"unauthenticated,omitempty"`
	exact
	Encrypted   bool       `json:"encrypted"`
	KeyID       keys.ID    `json:"key_id,omitempty"`
	Origin      string     `json:"origin,omitempty"`
	EncryptedAt *time.Time `json:"encrypted_at,omitempty"`
	BrokerID    string     `json:"broker_id,omitempty"`
	Deliveries  int        `json:"deliveries"`
	EnqueuedAt  *time.Time `json:"enqueued_at,omitempty"`
	Size        int        `json:"size"`
	payload
	// Stored is the body as the broker has it, if it was asked for.
	Stored     []byte            `json:"stored_base64,omitempty"`
	DeadLetter *deadLetterReport `json:"dead_letter,omitempty"`
	Rejected   *rejectedReport   `json:"rejected,omitempty"`
	// Error says why a message that was looked at does not open.
	Error  string `json:"error,omitempty"`
	Reason string `json:"reason,omitempty"`

	hidden bool // the body was left out on request
}

// exact holds the bytes of texts that are not UTF-8: in JSON each such byte becomes
// U+FFFD.
type exact struct {
	MessageID       []byte            `json:"message_id_base64,omitempty"`
	SessionID       []byte            `json:"session_id_base64,omitempty"`
	CorrelationID   []byte            `json:"correlation_id_base64,omitempty"`
	ContentType     []byte            `json:"content_type_base64,omitempty"`
	Attributes      map[string][]byte `json:"attributes_base64,omitempty"`
	Unauthenticated map[string][]byte `json:"unauthenticated_base64,omitempty"`
}

func exactOf(m *queue.Received) exact {
	return exact{
		MessageID: notUTF8(m.ID), SessionID: notUTF8(m.SessionID), CorrelationID: notUTF8(m.CorrelationID), ContentType: notUTF8(m.ContentType),
		Attributes: valuesNotUTF8(m.Attributes), Unauthenticated: valuesNotUTF8(m.Unauthenticated),
	}
}

// notUTF8 is the bytes of a text that is not UTF-8, nil of any other.
func notUTF8(text string) []byte {
	if utf8.ValidString(text) {
		return nil
	}
	return []byte(text)
}

func valuesNotUTF8(m map[string]string) map[string][]byte {
	var out map[string][]byte
	for name, value := range m {
		if b := notUTF8(value); b != nil {
			if out == nil {
				out = make(map[string][]byte)
			}
			out[name] = b
		}
	}
	return out
}

// withoutBody is the report without what the message says: for evidence that others are
// to see.
func (r messageReport) withoutBody() messageReport {
	r.payload, r.hidden = payload{}, true
	if r.DeadLetter != nil {
		d := *r.DeadLetter
		d.Detail = ""
		r.DeadLetter = &d
	}
	if !envelope.IsSealed(r.Stored) {
		r.Stored = nil // it is the body
	}
	return r
}

// deadLetterReport says why a message is in the dead-letter queue. The receiver or the
// broker that moved it there wrote it; only the detail is authentic.
type deadLetterReport struct {
	Reason      string     `json:"reason"`
	Description string     `json:"description,omitempty"`
	At          *time.Time `json:"at,omitempty"`
	// Detail is what the handler failed with, which came sealed. It may hold payload.
	Detail string `json:"detail,omitempty"`
	// DetailError says why the detail that there is does not open.
	DetailError string `json:"detail_error,omitempty"`
}

// rejectedReport is what became of a message that was received and not
// delivered.
type rejectedReport struct {
	Reason      string             `json:"reason"`
	Disposition driver.Disposition `json:"disposition"`
	Error       string             `json:"error"`
	SettleError string             `json:"settle_error,omitempty"`
}

func instant(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func newMessageReport(m *queue.Received) messageReport {
	return messageReport{
		Queue:           m.Queue,
		MessageID:       m.ID,
		SessionID:       m.SessionID,
		CorrelationID:   m.CorrelationID,
		ContentType:     m.ContentType,
		Attributes:      m.Attributes,
		Unauthenticated: m.Unauthenticated,
		Encrypted:       m.Encrypted,
		KeyID:           m.KeyID,
		Origin:          m.Origin,
		EncryptedAt:     instant(m.EncryptedAt),
		BrokerID:        m.BrokerID,
		Deliveries:      m.Count,
		EnqueuedAt:      instant(m.EnqueuedAt),
		Size:            len(m.Body),
		payload:         newPayload(m.Body),
		exact:           exactOf(m),
	}
}

// newPeekedReport is a message that was looked at; its body is left out if it does not
// open.
func newPeekedReport(p *queue.Peeked) messageReport { return newLookReport(&p.Received, p.Err) }

// newLetterReport is newPeekedReport for a dead letter.
func newLetterReport(l *deadletter.Letter) messageReport {
	r := newLookReport(&l.Received, l.Err)
	r.DeadLetter = newDeadLetterReport(&l.DeadLetter)
	r.DeadLetter.Detail = l.Detail
	if l.DetailErr != nil {
		r.DeadLetter.DetailError = l.DetailErr.Error()
	}
	return r
}

func newLookReport(m *queue.Received, err error) messageReport {
	r := newMessageReport(m)
	if err != nil {
		r.payload = payload{}
		r.Error, r.Reason = err.Error(), queue.ReasonOf(err)
	}
	return r
}

func newDeadLetterReport(d *driver.DeadLetter) *deadLetterReport {
	if d == nil {
		return nil
	}
	return &deadLetterReport{Reason: d.Reason, Description: d.Description, At: instant(d.At)}
}

func newRejectedReport(e *queue.RejectedError) messageReport {
	r := messageReport{
		Queue:      e.Queue,
		MessageID:  e.MessageID,
		SessionID:  e.SessionID,
		KeyID:      e.KeyID,
		BrokerID:   e.BrokerID,
		Deliveries: e.Count,
		Rejected:   &rejectedReport{Reason: e.Reason, Disposition: e.Disposition, Error: e.Err.Error()},
	}
	if e.SettleErr != nil {
		r.Rejected.SettleError = e.SettleErr.Error()
	}
	return r
}

// show writes a message for a person: what is known of it, then its body.
func (r *messageReport) show(s *display.Screen) {
	first := s.Dim("message") + " " + s.Bold(display.Safe(r.MessageID))
	for _, f := range []struct{ name, value string }{{"session", r.SessionID}, {"correlation", r.CorrelationID}, {"type", r.ContentType}} {
		if f.value != "" {
			first += "  " + s.Dim(f.name) + " " + display.Safe(f.value)
		}
	}
	s.Line(first)
	switch {
	case r.Error != "":
		s.Line("  " + s.Bad("does not open") + "  " + display.Safe(r.Error))
	case r.Encrypted:
		s.Line("  " + s.Good("sealed") + " under key " + s.Name(display.Safe(string(r.KeyID))) + ", " + relative(*r.EncryptedAt, time.Now()))
	default:
		s.Line("  " + s.Warn("NOT encrypted") + ": anyone with access to the broker can have written it")
	}
	if len(r.Attributes) > 0 {
		s.Line("  " + pairsText(r.Attributes))
	}
	if len(r.Unauthenticated) > 0 {
		s.Line("  " + s.Warn("added on the way, not authenticated:") + " " + pairsText(r.Unauthenticated))
	}
	if d := r.DeadLetter; d != nil {
		d.show(s)
	}
	if r.Deliveries > 1 {
		s.Printf("  %s\n", s.Dim("delivery "+display.Count(r.Deliveries)))
	}
	r.showBody(s)
}

// show writes why a message is a dead letter.
func (d *deadLetterReport) show(s *display.Screen) {
	line := "  " + s.Dim("dead-lettered as") + " " + s.Warn(display.Safe(d.Reason))
	if d.At != nil {
		line += " " + relative(*d.At, time.Now())
	}
	if d.Description != "" {
		line += ": " + display.Safe(d.Description)
	}
	s.Line(line)
	d.showDetail(s)
}

// showDetail writes what the handler failed with, framed like a body.
func (d *deadLetterReport) showDetail(s *display.Screen) {
	switch {
	case d.DetailError != "":
		s.Line("  " + s.Bad("why it failed does not open") + "  " + display.Safe(d.DetailError))
	case d.Detail != "":
		s.Printf("  %s\n%s", s.Dim("why it failed, sealed by the receiver:"), s.Frame(strings.TrimRight(d.Detail, "\n")))
	}
}

func (r *messageReport) showBody(s *display.Screen) {
	switch {
	case r.Error != "":
	case r.hidden:
		s.Printf("%s\n", s.Dim("(body of "+display.Bytes(r.Size)+" not shown)"))
	case r.Body != nil:
		// Framed, so that a body cannot look like the next message.
		s.Printf("%s", s.Frame(strings.TrimRight(*r.Body, "\n")))
	default:
		s.Printf("%s\n", s.Dim("("+display.Count(len(r.Base64))+" bytes that are no text)"))
	}
}

func pairsText(m map[string]string) string {
	var b strings.Builder
	for i, name := range slices.Sorted(maps.Keys(m)) {
		if i > 0 {
			b.WriteString("  ")
		}
		b.WriteString(display.Safe(name) + "=" + display.Safe(m[name]))
	}
	return b.String()
}
