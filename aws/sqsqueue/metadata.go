package sqsqueue

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/queue-runtime/queue/driver"
)

// The message attributes that this driver adds. The prefix "qrt-" is reserved,
// so no application attribute can have one of these names.
const (
	attrID         = "qrt-sqs-id"          // Message.ID: SQS gives every message an ID of its own, a new one at each redrive
	attrEncoding   = "qrt-sqs-encoding"    // how the body travels: see body.go
	attrPacked     = "qrt-sqs-packed"      // what has no attribute of its own: JSON of packed
	attrDeadLetter = "qrt-sqs-dead-letter" // on dead letters only: JSON of deadLetter
)

const (
	// maxAttributes is how many attributes SQS takes a message (Developer
	// Guide, message quotas).
	maxAttributes = 10
	// sendAttributes leaves room for attrDeadLetter, so that every message can
	// be dead-lettered with all that it carries.
	sendAttributes = maxAttributes - 1
	// maxAttributeName bounds the name of an SQS attribute in characters.
	maxAttributeName = 256
)

// Trace headers that get an attribute of their own if there is room, under
// the names by which other instrumentation finds them.
const (
	traceParent = "traceparent"
	traceState  = "tracestate"
)

// stringType is the data type of every attribute that this driver writes.
const stringType = "String"

// binaryType begins the data type of attributes that are bytes.
const binaryType = "Binary"

// packed is what travels in attrPacked: JSON, in ASCII. A pair is a name and a
// value; pairs, not objects, so that a name that comes twice is seen.
type packed struct {
	ID          string      `json:"id,omitempty"`
	Session     string      `json:"session,omitempty"`
	Correlation string      `json:"correlation,omitempty"`
	ContentType string      `json:"content_type,omitempty"`
	TTL         int64       `json:"ttl_ms,omitempty"`
	Attributes  [][2]string `json:"attributes,omitempty"`
	Trace       [][2]string `json:"trace,omitempty"`
}

func (p *packed) empty() bool {
	return p.ID == "" && p.Session == "" && p.Correlation == "" && p.ContentType == "" && p.TTL == 0 &&
		len(p.Attributes) == 0 && len(p.Trace) == 0
}

// deadLetter is what travels in attrDeadLetter.
type deadLetter struct {
	Reason      string `json:"reason"`
	Description string `json:"description,omitempty"`
	Queue       string `json:"queue"`
	At          string `json:"at"` // RFC 3339
	// Attributes are those that had to give way to this one: name, data type
	// and value. Only a foreign sender uses all ten.
	Attributes [][3]string `json:"attributes,omitempty"`
}

// attributes lays out a message's metadata: application attributes as SQS
// attributes of the same name while there is room and if SQS can hold them,
// everything else in attrPacked.
func attributes(m *driver.Message, encoding, session string) (map[string]types.MessageAttributeValue, error) {
	out := make(map[string]types.MessageAttributeValue, 4+len(m.Attributes))
	put := func(name, value string) {
		out[name] = types.MessageAttributeValue{DataType: aws.String(stringType), StringValue: aws.String(value)}
	}
	rest := packed{
		Session:     session,
		Correlation: m.CorrelationID,
		ContentType: m.ContentType,
		TTL:         (m.TTL + time.Millisecond - 1).Milliseconds(), // never shorter than asked for
	}
	if validText([]byte(m.ID)) {
		put(attrID, m.ID)
	} else {
		rest.ID = m.ID
	}
	if encoding != "" {
		put(attrEncoding, encoding)
	}
	// Sorted, so that equal messages are laid out equally.
	var native, typed []string
	was, _ := m.Received.(received)
	for _, name := range slices.Sorted(maps.Keys(m.Attributes)) {
		if _, is := was.typed(name, m.Attributes[name]); is {
			typed = append(typed, name)
		} else if nativeName(name) && nativeValue(m.Attributes[name]) {
			native = append(native, name)
		} else {
			rest.Attributes = append(rest.Attributes, [2]string{name, m.Attributes[name]})
		}
	}
	var trace []string
	for _, name := range slices.Sorted(maps.Keys(m.Trace)) {
		if (name == traceParent || name == traceState) && nativeValue(m.Trace[name]) {
			trace = append(trace, name)
		} else if m.Trace[name] != "" {
			rest.Trace = append(rest.Trace, [2]string{name, m.Trace[name]})
		}
	}
	room := sendAttributes - len(out)
	if !rest.empty() || len(typed)+len(native)+len(trace) > room {
		room-- // for attrPacked
	}
	for _, name := range typed {
		if room == 0 {
			return nil, driver.Errorf(driver.Invalid, "attribute %q: there is no room to keep its data type", name)
		}
		out[name], _ = was.typed(name, m.Attributes[name])
		room--
	}
	for _, name := range native {
		if room == 0 {
			rest.Attributes = append(rest.Attributes, [2]string{name, m.Attributes[name]})
			continue
		}
		put(name, m.Attributes[name])
		room--
	}
	for _, name := range trace {
		if room == 0 {
			rest.Trace = append(rest.Trace, [2]string{name, m.Trace[name]})
			continue
		}
		put(name, m.Trace[name])
		room--
	}
	if !rest.empty() {
		text, err := rest.text()
		if err != nil {
			return nil, err
		}
		put(attrPacked, text)
	}
	return out, nil
}

func (p *packed) text() (string, error) {
	for _, s := range [...]struct{ what, value string }{
		{"the message ID", p.ID}, {"the session ID", p.Session}, {"the correlation ID", p.Correlation}, {"the content type", p.ContentType},
	} {
		if !utf8.ValidString(s.value) {
			return "", driver.Errorf(driver.Invalid, "%s is not UTF-8", s.what)
		}
	}
	for _, a := range p.Attributes {
		if !utf8.ValidString(a[0]) || !utf8.ValidString(a[1]) {
			return "", driver.Errorf(driver.Invalid, "attribute %q is not UTF-8", a[0])
		}
	}
	return asciiJSON(p)
}

// asciiJSON returns v as JSON in which everything but ASCII is escaped: SQS does
// not take every character that JSON leaves as it is.
func asciiJSON(v any) (string, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return "", driver.Errorf(driver.Invalid, "metadata: %w", err)
	}
	raw := bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
	var out strings.Builder
	out.Grow(len(raw))
	for len(raw) > 0 {
		r, n := utf8.DecodeRune(raw)
		raw = raw[n:]
		switch {
		case r < utf8.RuneSelf:
			out.WriteByte(byte(r)) //nolint:gosec // G115: ASCII
		case r >= 0x10000:
			r -= 0x10000
			fmt.Fprintf(&out, `\u%04x\u%04x`, 0xD800+(r>>10), 0xDC00+(r&0x3FF))
		default:
			fmt.Fprintf(&out, `\u%04x`, r)
		}
	}
	return out.String(), nil
}

// nativeName reports whether SQS takes name as the name of an attribute (API
// Reference, MessageAttributeValue).
func nativeName(name string) bool {
	if name == "" || len(name) > maxAttributeName || name[0] == '.' || name[len(name)-1] == '.' || strings.Contains(name, "..") {
		return false
	}
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '-', c == '.':
		default:
			return false
		}
	}
	lower := strings.ToLower(name)
	return !strings.HasPrefix(lower, "aws.") && !strings.HasPrefix(lower, "amazon.") && !driverName(name)
}

// driverName reports whether name is one of this driver's own.
func driverName(name string) bool {
	return name == attrID || name == attrEncoding || name == attrPacked || name == attrDeadLetter
}

// nativeValue reports whether SQS takes value as the value of an attribute: not
// empty, and of the characters that a body may have.
func nativeValue(value string) bool { return value != "" && validText([]byte(value)) }

// attributesSize is what attributes count against the limits: names, data types
// and values (Developer Guide, message attributes).
func attributesSize(attrs map[string]types.MessageAttributeValue) int {
	n := 0
	for name, v := range attrs {
		n += len(name) + len(aws.ToString(v.DataType)) + len(aws.ToString(v.StringValue)) + len(v.BinaryValue)
	}
	return n
}

// value returns an attribute's value, whatever its type.
func value(v types.MessageAttributeValue) string {
	if v.StringValue != nil {
		return *v.StringValue
	}
	return string(v.BinaryValue)
}

// metadataState says what is wrong with the metadata of a message that was received.
type metadataState uint8

const (
	metadataSound     metadataState = iota
	metadataDuplicate               // the name of an attribute came twice
	metadataBroken                  // attrPacked does not parse, or there are two IDs
)

// parseMetadata undoes attributes on m. Unless all is sound, m holds what could be read.
func parseMetadata(m *driver.Message, attrs map[string]types.MessageAttributeValue) (session string, state metadataState) {
	put := func(name, val string) {
		if _, twice := m.Attributes[name]; twice {
			state = max(state, metadataDuplicate)
			return
		}
		if m.Attributes == nil {
			m.Attributes = make(map[string]string, len(attrs))
		}
		m.Attributes[name] = val
	}
	putTrace := func(name, val string) {
		if m.Trace == nil {
			m.Trace = make(map[string]string, 2)
		}
		m.Trace[name] = val
	}
	for name, v := range attrs {
		switch {
		case name == attrID:
			m.ID = value(v)
		case driverName(name):
		case name == traceParent || name == traceState:
			putTrace(name, value(v))
		default:
			put(name, value(v))
		}
	}
	raw, has := attrs[attrPacked]
	if !has {
		return "", state
	}
	var p packed
	if err := json.Unmarshal([]byte(value(raw)), &p); err != nil {
		return "", metadataBroken
	}
	if p.ID != "" {
		if _, twice := attrs[attrID]; twice {
			state = metadataBroken
		}
		m.ID = p.ID
	}
	m.CorrelationID, m.ContentType = p.Correlation, p.ContentType
	if p.TTL > 0 && p.TTL <= int64(maxTTL/time.Millisecond) {
		m.TTL = time.Duration(p.TTL) * time.Millisecond
	}
	for _, a := range p.Attributes {
		put(a[0], a[1])
	}
	for _, t := range p.Trace {
		putTrace(t[0], t[1])
	}
	return p.Session, state
}

// maxTTL is the longest TTL that a time.Duration holds.
const maxTTL = 1<<63 - 1
