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

// places says where the value of each name belongs. The type of a place says how the
// value is written.
func (v *Vector) places() map[string]any {
	return map[string]any{
		"comment": (*word)(&v.Comment), "expect": (*word)(&v.Expect), "layer": (*word)(&v.Layer), "field": (*word)(&v.Field), "domain": (*word)(&v.Domain),
		"key":        &v.Key,
		"message-id": &v.MessageID, "session-id": &v.SessionID, "content-type": &v.ContentType, "correlation-id": &v.CorrelationID,
		"attribute": &v.Attributes, "associated-data": &v.AssociatedData,
		"padded":       &v.Padded,
		"encrypted-at": &v.EncryptedAt, "not-before": &v.NotBefore, "expires-at": &v.ExpiresAt,
		"stream": &v.Stream, "sequence": &v.Sequence, "settled": &v.Settled, "previous": &v.Previous, "resealed-at": &v.ResealedAt,
		"void":   &v.Void,
		"key-id": &v.KeyID, "sender-id": &v.SenderID, "origin": &v.Origin, "bound": &v.Bound,
		"check-value": &v.CheckValue, "sender-key": &v.SenderKey, "message-key": &v.MessageKey,
		"additional-data": &v.AdditionalData, "plaintext": &v.Plaintext, "envelope": &v.Envelope,
	}
}

// word is a value that stands as it is.
type word string

func (v *Vector) set(name, value string) (err error) {
	plain := strings.TrimPrefix(value, " ")
	switch dst := v.places()[name].(type) {
	case *word:
		*dst = word(plain)
	case *bool:
		*dst = plain == yes
	case *string:
		*dst, err = unescape(plain)
	case *[]string:
		var s string
		s, err = unescape(plain)
		*dst = append(*dst, s)
	case *[]byte:
		*dst, err = hex.DecodeString(strings.ReplaceAll(value, " ", ""))
	case *int64:
		*dst, err = strconv.ParseInt(plain, 10, 64)
	case *uint64:
		*dst, err = strconv.ParseUint(plain, 10, 64)
	case *[]Attribute:
		var a Attribute
		a, err = parseAttribute(plain)
		*dst = append(*dst, a)
	case *[]Range:
		var r Range
		r, err = parseRange(plain)
		*dst = append(*dst, r)
	default:
		return errors.New("unknown")
	}
	return err
}

func parseAttribute(s string) (a Attribute, err error) {
	name, value, ok := strings.Cut(s, "=")
	if !ok {
		return a, errors.New("no =")
	}
	if a.Name, err = unescape(name); err == nil {
		a.Value, err = unescape(value)
	}
	return a, err
}

func parseRange(s string) (r Range, err error) {
	first, last, ok := strings.Cut(s, "-")
	if !ok {
		return r, errors.New("no -")
	}
	if r.First, err = strconv.ParseUint(first, 10, 64); err == nil {
		r.Last, err = strconv.ParseUint(last, 10, 64)
	}
	return r, err
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
	w := new(writer)
	w.line("comment", v.Comment)
	w.line("expect", string(v.Expect))
	if v.Expect != Open {
		w.line("layer", string(v.Layer))
	}
	if v.Layer == LayerParse {
		w.line("field", v.Field)
		w.block("envelope", v.Envelope)
		return w.String()
	}
	w.line("domain", string(v.Domain))
	w.line("key", hex.EncodeToString(v.Key))
	if v.Domain == Queue {
		w.text("message-id", v.MessageID)
		w.text("session-id", v.SessionID)
		w.text("content-type", v.ContentType)
		w.text("correlation-id", v.CorrelationID)
		for _, a := range v.Attributes {
			w.line("attribute", escape(a.Name)+"="+escape(a.Value))
		}
	} else {
		w.block("associated-data", v.AssociatedData)
	}
	if v.Expect == Open {
		v.writeOutcome(w)
	}
	w.block("envelope", v.Envelope)
	return w.String()
}

// writeOutcome writes what comes out of a vector that opens.
func (v *Vector) writeOutcome(w *writer) {
	if v.Padded {
		w.line("padded", yes)
	}
	w.line("encrypted-at", strconv.FormatInt(v.EncryptedAt, 10))
	w.line("not-before", strconv.FormatInt(v.NotBefore, 10))
	w.line("expires-at", strconv.FormatInt(v.ExpiresAt, 10))
	w.line("stream", hex.EncodeToString(v.Stream))
	w.line("sequence", strconv.FormatUint(v.Sequence, 10))
	w.line("settled", strconv.FormatUint(v.Settled, 10))
	w.line("previous", strconv.FormatUint(v.Previous, 10))
	w.line("resealed-at", strconv.FormatInt(v.ResealedAt, 10))
	for _, r := range v.Void {
		w.line("void", fmt.Sprintf("%d-%d", r.First, r.Last))
	}
	w.line("key-id", escape(v.KeyID))
	w.text("sender-id", v.SenderID)
	w.line("origin", escape(v.Origin))
	for _, name := range v.Bound {
		w.line("bound", escape(name))
	}
	w.line("check-value", hex.EncodeToString(v.CheckValue))
	w.line("sender-key", hex.EncodeToString(v.SenderKey))
	w.line("message-key", hex.EncodeToString(v.MessageKey))
	w.block("additional-data", v.AdditionalData)
	w.block("plaintext", v.Plaintext)
}

// writer collects the lines of a vector.
type writer struct{ strings.Builder }

func (w *writer) line(name, value string) { w.WriteString(name + ": " + value + "\n") }

// text writes a text unless it is empty.
func (w *writer) text(name, value string) {
	if value != "" {
		w.line(name, escape(value))
	}
}

func (w *writer) block(name string, data []byte) {
	w.WriteString(name + ":\n")
	for chunk := range slices.Chunk(data, 32) {
		w.WriteString(" " + hex.EncodeToString(chunk) + "\n")
	}
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
