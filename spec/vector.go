package spec

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Expect is what must become of a vector's envelope (qre1, Section 9.1).
type Expect string

// The outcomes: it opens, or it fails with one of the four errors of Section 6.1.
const (
	Open                 Expect = "open"
	InvalidEnvelope      Expect = "invalid_envelope"
	UnsupportedVersion   Expect = "unsupported_version"
	KeyNotFound          Expect = "key_not_found"
	AuthenticationFailed Expect = "authentication_failed"
)

// Layer is the step of opening that must fail (qre1, Section 6.1).
type Layer string

// The layers, in the order of the steps.
const (
	LayerParse          Layer = "parse"
	LayerKey            Layer = "key"
	LayerUse            Layer = "use"
	LayerContext        Layer = "context"
	LayerCommitment     Layer = "commitment"
	LayerAuthentication Layer = "authentication"
	LayerPadding        Layer = "padding"
)

// Domain says how the additional data is made (qre1, Sections 4.1 and 4.3).
type Domain string

// The domains.
const (
	Queue Domain = "queue"
	App   Domain = "app"
)

// Attribute is one attribute as it arrives beside an envelope.
type Attribute struct{ Name, Value string }

// Range is a run of sequences, both ends included.
type Range struct{ First, Last uint64 }

// Vector is one test vector. Strings may hold any bytes.
type Vector struct {
	Name    string // of the file, without its ending
	Comment string // what it shows

	Expect Expect
	Layer  Layer  // which step fails; empty for Open
	Field  string // the field of Section 2 that is wrong; for LayerParse only

	// What the receiver has. Domain and below are not there for LayerParse.
	Domain         Domain
	Key            []byte // the master key, 32 bytes
	MessageID      string
	SessionID      string
	ContentType    string
	CorrelationID  string
	Attributes     []Attribute // in the order of arrival; a name may come twice in LayerContext
	AssociatedData []byte      // for App only

	// What comes out, for Open only.
	Padded                            bool
	EncryptedAt, NotBefore, ExpiresAt int64
	Stream                            []byte // 16 bytes
	Sequence, Settled, Previous       uint64
	ResealedAt                        int64
	Void                              []Range
	KeyID, SenderID, Origin           string
	Bound                             []string
	CheckValue                        []byte // of the master key, 16 bytes
	SenderKey                         []byte // 32 bytes
	MessageKey                        []byte // AES-256 key
	AdditionalData                    []byte
	Plaintext                         []byte // without padding

	Envelope []byte
}

// ParseVector reads the text of one vector. It accepts exactly what Text writes.
func ParseVector(text string) (*Vector, error) {
	v := new(Vector)
	rest := text
	for rest != "" {
		line, after, ok := strings.Cut(rest, "\n")
		if !ok {
			return nil, errors.New("spec: the last line has no end")
		}
		rest = after
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return nil, fmt.Errorf("spec: a line without a name: %q", line)
		}
		for strings.HasPrefix(rest, " ") { // a block
			line, after, ok = strings.Cut(rest, "\n")
			if !ok {
				return nil, errors.New("spec: the last line has no end")
			}
			value += line
			rest = after
		}
		if err := v.set(name, value); err != nil {
			return nil, fmt.Errorf("spec: %s: %w", name, err)
		}
	}
	if err := v.check(); err != nil {
		return nil, fmt.Errorf("spec: %w", err)
	}
	// The form is canonical: order, case, line length and what is left out are
	// right when writing it again gives the same.
	if again := v.Text(); again != text {
		return nil, fmt.Errorf("spec: not in canonical form, from byte %d on", common(again, text))
	}
	return v, nil
}

// common returns how many bytes a and b begin with in common.
func common(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

func (v *Vector) set(name, value string) (err error) {
	plain := strings.TrimPrefix(value, " ")
	text := func(dst *string) { *dst, err = unescape(plain) }
	bytes := func(dst *[]byte) { *dst, err = hex.DecodeString(strings.ReplaceAll(value, " ", "")) }
	unsigned := func(dst *uint64) { *dst, err = strconv.ParseUint(plain, 10, 64) }
	number := func(dst *int64) { *dst, err = strconv.ParseInt(plain, 10, 64) }
	switch name {
	case "comment":
		v.Comment = plain
	case "expect":
		v.Expect = Expect(plain)
	case "layer":
		v.Layer = Layer(plain)
	case "field":
		v.Field = plain
	case "domain":
		v.Domain = Domain(plain)
	case "key":
		bytes(&v.Key)
	case "message-id":
		text(&v.MessageID)
	case "session-id":
		text(&v.SessionID)
	case "content-type":
		text(&v.ContentType)
	case "correlation-id":
		text(&v.CorrelationID)
	case "attribute":
		var a Attribute
		before, after, ok := strings.Cut(plain, "=")
		if !ok {
			return errors.New("no =")
		}
		if a.Name, err = unescape(before); err == nil {
			a.Value, err = unescape(after)
		}
		v.Attributes = append(v.Attributes, a)
	case "associated-data":
		bytes(&v.AssociatedData)
	case "padded":
		v.Padded = plain == yes
	case "encrypted-at":
		number(&v.EncryptedAt)
	case "not-before":
		number(&v.NotBefore)
	case "expires-at":
		number(&v.ExpiresAt)
	case "stream":
		bytes(&v.Stream)
	case "sequence":
		unsigned(&v.Sequence)
	case "settled":
		unsigned(&v.Settled)
	case "previous":
		unsigned(&v.Previous)
	case "resealed-at":
		number(&v.ResealedAt)
	case "void":
		var r Range
		before, after, ok := strings.Cut(plain, "-")
		if !ok {
			return errors.New("no -")
		}
		if r.First, err = strconv.ParseUint(before, 10, 64); err == nil {
			r.Last, err = strconv.ParseUint(after, 10, 64)
		}
		v.Void = append(v.Void, r)
	case "key-id":
		text(&v.KeyID)
	case "sender-id":
		text(&v.SenderID)
	case "origin":
		text(&v.Origin)
	case "bound":
		var s string
		text(&s)
		v.Bound = append(v.Bound, s)
	case "check-value":
		bytes(&v.CheckValue)
	case "sender-key":
		bytes(&v.SenderKey)
	case "message-key":
		bytes(&v.MessageKey)
	case "additional-data":
		bytes(&v.AdditionalData)
	case "plaintext":
		bytes(&v.Plaintext)
	case "envelope":
		bytes(&v.Envelope)
	default:
		return errors.New("unknown")
	}
	return err
}

// check refuses what the canonical form cannot: a vector that proves nothing.
func (v *Vector) check() error {
	if v.Comment == "" {
		return errors.New("no comment")
	}
	switch v.Expect {
	case Open:
		if v.Layer != "" {
			return errors.New("it opens, and a layer fails")
		}
		if len(v.MessageKey) != 32 || len(v.SenderKey) != 32 || len(v.CheckValue) != 16 || len(v.Stream) != 16 || len(v.AdditionalData) == 0 {
			return errors.New("it opens, and what comes out is not complete")
		}
	case InvalidEnvelope, UnsupportedVersion:
		if v.Layer != LayerParse {
			return fmt.Errorf("%s is found by layer %s", v.Expect, LayerParse)
		}
	case KeyNotFound:
		if v.Layer != LayerKey {
			return fmt.Errorf("%s is found by layer %s", v.Expect, LayerKey)
		}
	case AuthenticationFailed:
		switch v.Layer {
		case LayerUse, LayerContext, LayerCommitment, LayerAuthentication, LayerPadding:
		default:
			return fmt.Errorf("%s is not found by layer %q", v.Expect, v.Layer)
		}
	default:
		return fmt.Errorf("expect: %q is no outcome", v.Expect)
	}
	if (v.Layer == LayerParse) != (v.Field != "") {
		return fmt.Errorf("layer %q with field %q", v.Layer, v.Field)
	}
	if v.Layer == LayerParse {
		return nil
	}
	if v.Domain != Queue && v.Domain != App {
		return fmt.Errorf("domain: %q is none", v.Domain)
	}
	if len(v.Key) != 32 {
		return fmt.Errorf("key: %d bytes, want 32", len(v.Key))
	}
	for i, a := range v.Attributes {
		if v.Layer != LayerContext && slices.ContainsFunc(v.Attributes[:i], func(b Attribute) bool { return a.Name == b.Name }) {
			return fmt.Errorf("attribute %q comes twice", a.Name)
		}
	}
	return nil
}

// yes is the value of what is said only when it is so.
const yes = "yes"

// Text writes v in its canonical form.
func (v *Vector) Text() string {
	var b strings.Builder
	line := func(name, value string) { b.WriteString(name + ": " + value + "\n") }
	scalar := func(name, value string) {
		if value != "" {
			line(name, escape(value))
		}
	}
	block := func(name string, data []byte) {
		b.WriteString(name + ":\n")
		for chunk := range slices.Chunk(data, 32) {
			b.WriteString(" " + hex.EncodeToString(chunk) + "\n")
		}
	}
	line("comment", v.Comment)
	line("expect", string(v.Expect))
	if v.Expect != Open {
		line("layer", string(v.Layer))
	}
	if v.Layer == LayerParse {
		line("field", v.Field)
		block("envelope", v.Envelope)
		return b.String()
	}
	line("domain", string(v.Domain))
	line("key", hex.EncodeToString(v.Key))
	if v.Domain == Queue {
		scalar("message-id", v.MessageID)
		scalar("session-id", v.SessionID)
		scalar("content-type", v.ContentType)
		scalar("correlation-id", v.CorrelationID)
		for _, a := range v.Attributes {
			line("attribute", escape(a.Name)+"="+escape(a.Value))
		}
	} else {
		block("associated-data", v.AssociatedData)
	}
	if v.Expect == Open {
		if v.Padded {
			line("padded", yes)
		}
		line("encrypted-at", strconv.FormatInt(v.EncryptedAt, 10))
		line("not-before", strconv.FormatInt(v.NotBefore, 10))
		line("expires-at", strconv.FormatInt(v.ExpiresAt, 10))
		line("stream", hex.EncodeToString(v.Stream))
		line("sequence", strconv.FormatUint(v.Sequence, 10))
		line("settled", strconv.FormatUint(v.Settled, 10))
		line("previous", strconv.FormatUint(v.Previous, 10))
		line("resealed-at", strconv.FormatInt(v.ResealedAt, 10))
		for _, r := range v.Void {
			line("void", fmt.Sprintf("%d-%d", r.First, r.Last))
		}
		line("key-id", escape(v.KeyID))
		scalar("sender-id", v.SenderID)
		line("origin", escape(v.Origin))
		for _, name := range v.Bound {
			line("bound", escape(name))
		}
		line("check-value", hex.EncodeToString(v.CheckValue))
		line("sender-key", hex.EncodeToString(v.SenderKey))
		line("message-key", hex.EncodeToString(v.MessageKey))
		block("additional-data", v.AdditionalData)
		block("plaintext", v.Plaintext)
	}
	block("envelope", v.Envelope)
	return b.String()
}

// escape writes any bytes in printable ASCII: all but % and = stand for
// themselves, everything else is % and two hexadecimal digits.
func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == '%' || c == '=' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func unescape(s string) (string, error) {
	var b strings.Builder
	for {
		plain, rest, ok := strings.Cut(s, "%")
		b.WriteString(plain)
		if !ok {
			return b.String(), nil
		}
		if len(rest) < 2 {
			return "", errors.New("% without two digits")
		}
		c, err := strconv.ParseUint(rest[:2], 16, 8)
		if err != nil {
			return "", errors.New("% without two digits")
		}
		b.WriteByte(byte(c))
		s = rest[2:]
	}
}
