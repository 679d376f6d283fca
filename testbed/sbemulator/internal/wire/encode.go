package wire

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Append encodes v after b. It panics for a Go type that represents no AMQP
// value: that is a mistake of the caller, no property of any input.
func Append(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, codeNull)
	case bool:
		if v {
			return append(b, codeTrue)
		}
		return append(b, codeFalse)
	case uint32:
		if v == 0 {
			return append(b, codeUint0)
		}
	case uint64:
		if v == 0 {
			return append(b, codeUlong0)
		}
	case List:
		if len(v) == 0 {
			return append(b, codeList0)
		}
	case Described:
		b = append(b, codeDescribed)
		b = Append(b, v.Descriptor)
		return Append(b, v.Value)
	}
	code := codeOf(v)
	return appendBody(append(b, code), code, v)
}

// codeOf returns the format code that Append uses for v.
func codeOf(v any) byte {
	switch v := v.(type) {
	case nil:
		return codeNull
	case bool:
		return codeBoolean
	case uint8:
		return codeUbyte
	case int8:
		return codeByte
	case uint16:
		return codeUshort
	case int16:
		return codeShort
	case uint32:
		if v <= math.MaxUint8 {
			return codeSmallUint
		}
		return codeUint
	case int32:
		if v == int32(int8(v)) {
			return codeSmallInt
		}
		return codeInt
	case uint64:
		if v <= math.MaxUint8 {
			return codeSmallUlong
		}
		return codeUlong
	case int64:
		if v == int64(int8(v)) {
			return codeSmallLong
		}
		return codeLong
	case float32:
		return codeFloat
	case float64:
		return codeDouble
	case Char:
		return codeChar
	case Timestamp:
		return codeTimestamp
	case UUID:
		return codeUUID
	case Decimal:
		return v.Code
	case []byte:
		return shortOr(len(v), codeVbin8, codeVbin32)
	case string:
		return shortOr(len(v), codeStr8, codeStr32)
	case Symbol:
		return shortOr(len(v), codeSym8, codeSym32)
	case List:
		return codeList32
	case Map:
		return codeMap32
	case Array:
		return codeArray32
	}
	panic(fmt.Sprintf("wire: no AMQP type for %T", v))
}

func shortOr(n int, short, long byte) byte {
	if n <= math.MaxUint8 {
		return short
	}
	return long
}

// appendBody encodes v in the form of code, without the code. v must be of a
// type that code can hold.
func appendBody(b []byte, code byte, v any) []byte {
	switch code {
	case codeNull, codeTrue, codeFalse, codeUint0, codeUlong0, codeList0:
		return b
	case codeUbyte:
		return append(b, v.(uint8))
	case codeByte:
		return append(b, byte(v.(int8)))
	case codeSmallUint:
		return append(b, byte(v.(uint32)))
	case codeSmallUlong:
		return append(b, byte(v.(uint64)))
	case codeSmallInt:
		return append(b, byte(v.(int32)))
	case codeSmallLong:
		return append(b, byte(v.(int64)))
	case codeBoolean:
		if v.(bool) {
			return append(b, 1)
		}
		return append(b, 0)
	case codeUshort:
		return binary.BigEndian.AppendUint16(b, v.(uint16))
	case codeShort:
		return binary.BigEndian.AppendUint16(b, uint16(v.(int16)))
	case codeUint:
		return binary.BigEndian.AppendUint32(b, v.(uint32))
	case codeInt:
		return binary.BigEndian.AppendUint32(b, uint32(v.(int32)))
	case codeFloat:
		return binary.BigEndian.AppendUint32(b, math.Float32bits(v.(float32)))
	case codeChar:
		return binary.BigEndian.AppendUint32(b, uint32(v.(Char)))
	case codeUlong:
		return binary.BigEndian.AppendUint64(b, v.(uint64))
	case codeLong:
		return binary.BigEndian.AppendUint64(b, uint64(v.(int64)))
	case codeDouble:
		return binary.BigEndian.AppendUint64(b, math.Float64bits(v.(float64)))
	case codeTimestamp:
		return binary.BigEndian.AppendUint64(b, uint64(v.(Timestamp)))
	case codeDecimal32, codeDecimal64, codeDecimal128:
		return append(b, v.(Decimal).Bits...)
	case codeUUID:
		u := v.(UUID)
		return append(b, u[:]...)
	case codeVbin8, codeVbin32:
		x := v.([]byte)
		return append(appendSize(b, code, len(x)), x...)
	case codeStr8, codeStr32:
		x := v.(string)
		return append(appendSize(b, code, len(x)), x...)
	case codeSym8, codeSym32:
		x := v.(Symbol)
		return append(appendSize(b, code, len(x)), x...)
	default:
		return appendCompound(b, code, v)
	}
}

func appendSize(b []byte, code byte, n int) []byte {
	if sizeWidth(code) == 1 {
		return append(b, byte(n))
	}
	return binary.BigEndian.AppendUint32(b, uint32(n))
}

// appendCompound writes size and count of the code's width, and the elements.
// The width is the caller's choice only inside an array whose elements were of
// the 8-bit form when they were decoded.
func appendCompound(b []byte, code byte, v any) []byte {
	width := sizeWidth(code)
	at := len(b)
	b = append(b, make([]byte, 2*width)...)
	count := 0
	switch v := v.(type) {
	case List:
		count = len(v)
		for _, x := range v {
			b = Append(b, x)
		}
	case Map:
		count = 2 * len(v)
		for _, p := range v {
			b = Append(Append(b, p.Key), p.Value)
		}
	case Array:
		count = len(v.Elems)
		if v.Descriptor != nil {
			b = Append(append(b, codeDescribed), v.Descriptor)
		}
		code := wide(v.Code)
		b = append(b, code)
		for _, x := range v.Elems {
			b = appendBody(b, code, x)
		}
	}
	size := len(b) - at - width
	if width == 1 {
		b[at], b[at+1] = byte(size), byte(count)
		return b
	}
	binary.BigEndian.PutUint32(b[at:], uint32(size))
	binary.BigEndian.PutUint32(b[at+4:], uint32(count))
	return b
}

// wide returns the 32-bit form of a compound's code. Re-encoding may lengthen
// what is inside (a list8 becomes a list32), so the 8-bit form may not hold.
func wide(code byte) byte {
	switch code {
	case codeList8:
		return codeList32
	case codeMap8:
		return codeMap32
	case codeArray8:
		return codeArray32
	}
	return code
}
