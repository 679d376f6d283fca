package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"
)

// The bounds of one decoding.
const (
	// MaxDepth is how deep values may nest: compounds, arrays and descriptors.
	MaxDepth = 32
	// MaxValues is how many values one decoding may yield. It bounds what a few
	// bytes can make us allocate: elements of an array can be of no width.
	MaxValues = 1 << 16
)

// ErrDecode is wrapped by every error about bytes that are no AMQP value, or
// one beyond the bounds.
var ErrDecode = errors.New("invalid amqp encoding")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDecode, fmt.Sprintf(format, args...))
}

// Decode reads the value at the start of b and returns what follows it.
// Binary values refer to b.
func Decode(b []byte) (v any, rest []byte, err error) {
	d := decoder{b: b, left: MaxValues}
	v, err = d.value(0)
	if err != nil {
		return nil, b, err
	}
	return v, d.b, nil
}

type decoder struct {
	b    []byte
	left int // values that may still be read
}

func (d *decoder) take(n int) ([]byte, error) {
	if n < 0 || n > len(d.b) {
		return nil, malformed("%d bytes wanted, %d left", n, len(d.b))
	}
	out := d.b[:n:n]
	d.b = d.b[n:]
	return out, nil
}

// size reads a size or count of the width that the code's upper half implies.
func (d *decoder) size(width int) (int, error) {
	b, err := d.take(width)
	if err != nil {
		return 0, err
	}
	if width == 1 {
		return int(b[0]), nil
	}
	n := binary.BigEndian.Uint32(b)
	if n > math.MaxInt32 {
		return 0, malformed("size %d", n)
	}
	return int(n), nil
}

func (d *decoder) spend(n int) error {
	if n > d.left {
		return malformed("more than %d values", MaxValues)
	}
	d.left -= n
	return nil
}

func (d *decoder) value(depth int) (any, error) {
	if depth > MaxDepth {
		return nil, malformed("nested deeper than %d", MaxDepth)
	}
	if err := d.spend(1); err != nil {
		return nil, err
	}
	code, err := d.take(1)
	if err != nil {
		return nil, err
	}
	if code[0] != codeDescribed {
		return d.body(code[0], depth)
	}
	desc, err := d.value(depth + 1)
	if err != nil {
		return nil, err
	}
	v, err := d.value(depth + 1)
	if err != nil {
		return nil, err
	}
	return Described{desc, v}, nil
}

// body reads the value of a format code (types 1.6).
func (d *decoder) body(code byte, depth int) (any, error) {
	switch code >> 4 {
	case 0x4:
		return emptyValue(code)
	case 0x5, 0x6, 0x7, 0x8, 0x9:
		b, err := d.take(1 << (code>>4 - 5))
		if err != nil {
			return nil, err
		}
		return fixedValue(code, b)
	case 0xa, 0xb:
		n, err := d.size(sizeWidth(code))
		if err != nil {
			return nil, err
		}
		b, err := d.take(n)
		if err != nil {
			return nil, err
		}
		return variableValue(code, b)
	case 0xc, 0xd, 0xe, 0xf:
		return d.compound(code, depth)
	}
	return nil, malformed("format code %#02x", code)
}

// sizeWidth is 1 for the codes 0xa_, 0xc_, 0xe_ and 4 for 0xb_, 0xd_, 0xf_.
func sizeWidth(code byte) int {
	if code>>4&1 == 0 {
		return 1
	}
	return 4
}

func emptyValue(code byte) (any, error) {
	switch code {
	case codeNull:
		return nil, nil
	case codeTrue:
		return true, nil
	case codeFalse:
		return false, nil
	case codeUint0:
		return uint32(0), nil
	case codeUlong0:
		return uint64(0), nil
	case codeList0:
		return List{}, nil
	}
	return nil, malformed("format code %#02x", code)
}

func fixedValue(code byte, b []byte) (any, error) {
	switch code {
	case codeUbyte:
		return b[0], nil
	case codeByte:
		return int8(b[0]), nil
	case codeSmallUint:
		return uint32(b[0]), nil
	case codeSmallUlong:
		return uint64(b[0]), nil
	case codeSmallInt:
		return int32(int8(b[0])), nil
	case codeSmallLong:
		return int64(int8(b[0])), nil
	case codeBoolean:
		if b[0] > 1 {
			return nil, malformed("boolean %#02x", b[0])
		}
		return b[0] == 1, nil
	case codeUshort:
		return binary.BigEndian.Uint16(b), nil
	case codeShort:
		return int16(binary.BigEndian.Uint16(b)), nil
	case codeUint:
		return binary.BigEndian.Uint32(b), nil
	case codeInt:
		return int32(binary.BigEndian.Uint32(b)), nil
	case codeFloat:
		return math.Float32frombits(binary.BigEndian.Uint32(b)), nil
	case codeChar:
		r := rune(binary.BigEndian.Uint32(b))
		if !utf8.ValidRune(r) {
			return nil, malformed("char %#x", uint32(r))
		}
		return Char(r), nil
	case codeUlong:
		return binary.BigEndian.Uint64(b), nil
	case codeLong:
		return int64(binary.BigEndian.Uint64(b)), nil
	case codeDouble:
		return math.Float64frombits(binary.BigEndian.Uint64(b)), nil
	case codeTimestamp:
		return Timestamp(binary.BigEndian.Uint64(b)), nil
	case codeDecimal32, codeDecimal64, codeDecimal128:
		return Decimal{code, b}, nil
	case codeUUID:
		return UUID(b), nil
	}
	return nil, malformed("format code %#02x", code)
}

func variableValue(code byte, b []byte) (any, error) {
	switch code {
	case codeVbin8, codeVbin32:
		return b, nil
	case codeStr8, codeStr32:
		if !utf8.Valid(b) {
			return nil, malformed("string that is not UTF-8")
		}
		return string(b), nil
	case codeSym8, codeSym32:
		for _, c := range b {
			if c >= utf8.RuneSelf {
				return nil, malformed("symbol that is not ASCII")
			}
		}
		return Symbol(b), nil
	}
	return nil, malformed("format code %#02x", code)
}

// compound reads a list, map or array. Its elements must fill exactly the size
// that it declares.
func (d *decoder) compound(code byte, depth int) (any, error) {
	width := sizeWidth(code)
	size, err := d.size(width)
	if err != nil {
		return nil, err
	}
	inner, err := d.take(size)
	if err != nil {
		return nil, err
	}
	in := decoder{b: inner, left: d.left}
	count, err := in.size(width)
	if err != nil {
		return nil, err
	}
	var v any
	switch code {
	case codeList8, codeList32:
		v, err = in.list(count, depth)
	case codeMap8, codeMap32:
		v, err = in.entries(count, depth)
	case codeArray8, codeArray32:
		v, err = in.array(count, depth)
	default:
		return nil, malformed("format code %#02x", code)
	}
	if err != nil {
		return nil, err
	}
	if len(in.b) != 0 {
		return nil, malformed("%d bytes after the last element of %#02x", len(in.b), code)
	}
	d.left = in.left
	return v, nil
}

func (d *decoder) list(count, depth int) (any, error) {
	if count > len(d.b) { // an element has at least its code
		return nil, malformed("list of %d elements in %d bytes", count, len(d.b))
	}
	out := make(List, 0, min(count, d.left))
	for range count {
		v, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

func (d *decoder) entries(count, depth int) (any, error) {
	if count%2 != 0 || count > len(d.b) {
		return nil, malformed("map of %d elements in %d bytes", count, len(d.b))
	}
	out := make(Map, 0, min(count, d.left)/2)
	for range count / 2 {
		k, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		v, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		out = append(out, Pair{k, v})
	}
	return out, nil
}

func (d *decoder) array(count, depth int) (any, error) {
	if depth+1 > MaxDepth {
		return nil, malformed("nested deeper than %d", MaxDepth)
	}
	var a Array
	code, err := d.take(1)
	if err != nil {
		return nil, err
	}
	if code[0] == codeDescribed {
		if a.Descriptor, err = d.value(depth + 1); err != nil {
			return nil, err
		}
		if code, err = d.take(1); err != nil {
			return nil, err
		}
		if code[0] == codeDescribed {
			return nil, malformed("array of described descriptions")
		}
	}
	a.Code = code[0]
	if err := d.spend(count); err != nil { // bounds elements of no width too
		return nil, err
	}
	if a.Code>>4 != 4 && count > len(d.b) {
		return nil, malformed("array of %d elements in %d bytes", count, len(d.b))
	}
	a.Elems = make([]any, 0, count)
	for range count {
		v, err := d.body(a.Code, depth+1)
		if err != nil {
			return nil, err
		}
		a.Elems = append(a.Elems, v)
	}
	if count == 0 { // the code of an empty array is unread above
		if err := knownCode(a.Code); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func knownCode(code byte) error {
	switch code {
	case codeNull, codeTrue, codeFalse, codeUint0, codeUlong0, codeList0,
		codeUbyte, codeByte, codeSmallUint, codeSmallUlong, codeSmallInt, codeSmallLong, codeBoolean,
		codeUshort, codeShort, codeUint, codeInt, codeFloat, codeChar, codeDecimal32,
		codeUlong, codeLong, codeDouble, codeTimestamp, codeDecimal64, codeDecimal128, codeUUID,
		codeVbin8, codeStr8, codeSym8, codeVbin32, codeStr32, codeSym32,
		codeList8, codeMap8, codeList32, codeMap32, codeArray8, codeArray32:
		return nil
	}
	return malformed("format code %#02x", code)
}
