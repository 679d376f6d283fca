package wire

import (
	"math"
	"strconv"
)

// The descriptors of composite types.
const (
	descOpen        = 0x10
	descBegin       = 0x11
	descAttach      = 0x12
	descFlow        = 0x13
	descTransfer    = 0x14
	descDisposition = 0x15
	descDetach      = 0x16
	descEnd         = 0x17
	descClose       = 0x18
	descError       = 0x1d
	descReceived    = 0x23
	descAccepted    = 0x24
	descRejected    = 0x25
	descReleased    = 0x26
	descModified    = 0x27
	descSource      = 0x28
	descTarget      = 0x29
	descMechanisms  = 0x40
	descInit        = 0x41
	descChallenge   = 0x42
	descResponse    = 0x43
	descOutcome     = 0x44
	descHeader      = 0x70
	descDelivery    = 0x71
	descMessage     = 0x72
	descProperties  = 0x73
	descApplication = 0x74
	descData        = 0x75
	descSequence    = 0x76
	descValue       = 0x77
	descFooter      = 0x78
)

// symbols are the other form that a descriptor may have on the wire.
var symbols = map[Symbol]uint64{
	"amqp:open:list":                  descOpen,
	"amqp:begin:list":                 descBegin,
	"amqp:attach:list":                descAttach,
	"amqp:flow:list":                  descFlow,
	"amqp:transfer:list":              descTransfer,
	"amqp:disposition:list":           descDisposition,
	"amqp:detach:list":                descDetach,
	"amqp:end:list":                   descEnd,
	"amqp:close:list":                 descClose,
	"amqp:error:list":                 descError,
	"amqp:received:list":              descReceived,
	"amqp:accepted:list":              descAccepted,
	"amqp:rejected:list":              descRejected,
	"amqp:released:list":              descReleased,
	"amqp:modified:list":              descModified,
	"amqp:source:list":                descSource,
	"amqp:target:list":                descTarget,
	"amqp:sasl-mechanisms:list":       descMechanisms,
	"amqp:sasl-init:list":             descInit,
	"amqp:sasl-challenge:list":        descChallenge,
	"amqp:sasl-response:list":         descResponse,
	"amqp:sasl-outcome:list":          descOutcome,
	"amqp:header:list":                descHeader,
	"amqp:delivery-annotations:map":   descDelivery,
	"amqp:message-annotations:map":    descMessage,
	"amqp:properties:list":            descProperties,
	"amqp:application-properties:map": descApplication,
	"amqp:data:binary":                descData,
	"amqp:amqp-sequence:list":         descSequence,
	"amqp:amqp-value:*":               descValue,
	"amqp:footer:map":                 descFooter,
}

// descriptor returns the numeric form of a descriptor.
func descriptor(v any) (uint64, bool) {
	switch v := v.(type) {
	case uint64:
		return v, true
	case Symbol:
		n, ok := symbols[v]
		return n, ok
	}
	return 0, false
}

// appendComposite encodes fields as a described list. Trailing nulls are left
// out (types 1.4).
func appendComposite(b []byte, desc uint64, fields List) []byte {
	for len(fields) > 0 && fields[len(fields)-1] == nil {
		fields = fields[:len(fields)-1]
	}
	return Append(b, Described{desc, fields})
}

// reader reads the fields of a composite in turn. After the first field of a
// wrong type it reads zeroes and holds the error.
type reader struct {
	what string
	list List
	next int
	err  error
}

func (r *reader) take() any {
	i := r.next
	r.next++
	if i >= len(r.list) {
		return nil
	}
	return r.list[i]
}

func (r *reader) fail(want string, got any) {
	if r.err == nil {
		r.err = malformed("%s: field %d is %T, not %s", r.what, r.next, got, want)
	}
}

// end returns the first error, even if there are more fields than were read.
func (r *reader) end() error {
	if r.err == nil && len(r.list) > r.next {
		return malformed("%s: %d fields, not %d", r.what, len(r.list), r.next)
	}
	return r.err
}

// unset is the default of each field of type boolean.
const unset = false

// field reads a field of type T, or null as the default.
func field[T any](r *reader, or T) T {
	v := r.take()
	if v == nil {
		return or
	}
	x, ok := v.(T)
	if !ok {
		r.fail(kind[T](), v)
		return or
	}
	return x
}

// optional reads a field of type T, or null as nil.
func optional[T any](r *reader) *T {
	v := r.take()
	if v == nil {
		return nil
	}
	x, ok := v.(T)
	if !ok {
		r.fail(kind[T](), v)
		return nil
	}
	return &x
}

// required reads a field of type T that must not be null.
func required[T any](r *reader) T {
	v := r.take()
	x, ok := v.(T)
	if !ok {
		r.fail(kind[T](), v)
	}
	return x
}

func kind[T any]() string {
	var v any = *new(T)
	switch v.(type) {
	case string:
		return "string"
	case Symbol:
		return "symbol"
	case bool:
		return "boolean"
	case uint8:
		return "ubyte"
	case uint16:
		return "ushort"
	case uint32:
		return "uint"
	case uint64:
		return "ulong"
	case []byte:
		return "binary"
	case Map:
		return "map"
	}
	return "of the type defined"
}

// text reads a string, or a symbol: some clients confuse the two.
func (r *reader) text() string {
	v := r.take()
	if v == nil {
		return ""
	}
	s, ok := Text(v)
	if !ok {
		r.fail("string", v)
	}
	return s
}

// composite returns the fields of v if it is the described list desc.
func composite(v any, desc uint64, what string) (*reader, error) {
	d, ok := v.(Described)
	if !ok {
		return nil, malformed("%s: %T, not a described list", what, v)
	}
	if n, ok := descriptor(d.Descriptor); !ok || n != desc {
		return nil, malformed("%s: another descriptor", what)
	}
	list, ok := d.Value.(List)
	if !ok {
		return nil, malformed("%s: %T, not a list", what, d.Value)
	}
	return &reader{what: what, list: list}, nil
}

// The helpers below turn a default into null on the way out.

func orNull[T comparable](v, null T) any {
	if v == null {
		return nil
	}
	return v
}

func pointed[T any](p *T) any {
	if p == nil {
		return nil
	}
	return *p
}

func mapOrNull(m Map) any {
	if len(m) == 0 {
		return nil
	}
	return m
}

func bytesOrNull(b []byte) any {
	if b == nil {
		return nil
	}
	return b
}

// Error is the composite that says why a link, session or connection ended, or
// why a delivery was rejected (transport 2.8.14).
type Error struct {
	Condition   Symbol
	Description string
	Info        Map
}

func (e *Error) Error() string {
	if e.Description == "" {
		return string(e.Condition)
	}
	return string(e.Condition) + ": " + strconv.Quote(e.Description)
}

func (e *Error) value() any {
	if e == nil {
		return nil
	}
	fields := List{e.Condition, orNull(e.Description, ""), mapOrNull(e.Info)}
	return Described{uint64(descError), fields}
}

func decodeError(v any) (*Error, error) {
	if v == nil {
		return nil, nil
	}
	r, err := composite(v, descError, "error")
	if err != nil {
		return nil, err
	}
	e := &Error{
		Condition:   Symbol(r.text()),
		Description: r.text(),
		Info:        field[Map](r, nil),
	}
	return e, r.end()
}

// noLimit is the default of fields that bound something (transport 2.7.1).
const noLimit = math.MaxUint32
