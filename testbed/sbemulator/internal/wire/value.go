package wire

import "time"

// The format codes of primitive types (types 1.6).
const (
	codeDescribed  = 0x00
	codeNull       = 0x40
	codeTrue       = 0x41
	codeFalse      = 0x42
	codeUint0      = 0x43
	codeUlong0     = 0x44
	codeList0      = 0x45
	codeUbyte      = 0x50
	codeByte       = 0x51
	codeSmallUint  = 0x52
	codeSmallUlong = 0x53
	codeSmallInt   = 0x54
	codeSmallLong  = 0x55
	codeBoolean    = 0x56
	codeUshort     = 0x60
	codeShort      = 0x61
	codeUint       = 0x70
	codeInt        = 0x71
	codeFloat      = 0x72
	codeChar       = 0x73
	codeDecimal32  = 0x74
	codeUlong      = 0x80
	codeLong       = 0x81
	codeDouble     = 0x82
	codeTimestamp  = 0x83
	codeDecimal64  = 0x84
	codeDecimal128 = 0x94
	codeUUID       = 0x98
	codeVbin8      = 0xa0
	codeStr8       = 0xa1
	codeSym8       = 0xa3
	codeVbin32     = 0xb0
	codeStr32      = 0xb1
	codeSym32      = 0xb3
	codeList8      = 0xc0
	codeMap8       = 0xc1
	codeList32     = 0xd0
	codeMap32      = 0xd1
	codeArray8     = 0xe0
	codeArray32    = 0xf0
)

// AMQP values are represented by these Go types:
//
//	null             nil
//	boolean          bool
//	ubyte .. ulong   uint8, uint16, uint32, uint64
//	byte .. long     int8, int16, int32, int64
//	float, double    float32, float64
//	decimal*         Decimal
//	char             Char
//	timestamp        Timestamp
//	uuid             UUID
//	binary           []byte
//	string, symbol   string, Symbol
//	list, map, array List, Map, Array
//	described types  Described
type (
	// Symbol is a symbolic value: ASCII.
	Symbol string
	// Char is one Unicode character.
	Char rune
	// UUID is 16 bytes in the order of RFC 4122.
	UUID [16]byte
	// Timestamp is milliseconds since the Unix epoch, UTC.
	Timestamp int64
	// List is an ordered sequence of values.
	List []any
	// Map is a map in the order of the wire. It is no Go map because keys may
	// be of any type, also of those that Go cannot compare.
	Map []Pair
)

// Pair is one entry of a [Map].
type Pair struct{ Key, Value any }

// Array is a sequence of values of one type.
type Array struct {
	// Code is the format code of the elements, as in types 1.6.
	Code byte
	// Descriptor is set if the elements are of a described type.
	Descriptor any
	Elems      []any
}

// Described is a value with a descriptor. A composite has a List as its value.
type Described struct{ Descriptor, Value any }

// Decimal is an IEEE 754 decimal, kept as its bytes.
type Decimal struct {
	Code byte // 0x74, 0x84 or 0x94
	Bits []byte
}

// TimestampOf returns t as a Timestamp. The zero time is the epoch.
func TimestampOf(t time.Time) Timestamp {
	if t.IsZero() {
		return 0
	}
	return Timestamp(t.UnixMilli())
}

// Time returns the time in UTC.
func (t Timestamp) Time() time.Time { return time.UnixMilli(int64(t)).UTC() }

// Get returns the value of the first entry whose key is name, as a string or
// as a symbol.
func (m Map) Get(name string) (any, bool) {
	for _, p := range m {
		if keyIs(p.Key, name) {
			return p.Value, true
		}
	}
	return nil, false
}

// String returns the entry's value if it is a string or a symbol.
func (m Map) String(name string) (string, bool) {
	v, ok := m.Get(name)
	if !ok {
		return "", false
	}
	return Text(v)
}

// With returns a map in which name, as a key of the same type, has the value v.
// The receiver is not changed.
func (m Map) With(key, v any) Map {
	name, _ := Text(key)
	out := make(Map, 0, len(m)+1)
	for _, p := range m {
		if !keyIs(p.Key, name) {
			out = append(out, p)
		}
	}
	return append(out, Pair{key, v})
}

func keyIs(key any, name string) bool {
	s, ok := Text(key)
	return ok && s == name
}

// Text returns the text of a string or symbol.
func Text(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case Symbol:
		return string(v), true
	}
	return "", false
}

// Int returns the value of any integer type that fits in an int64.
func Int(v any) (int64, bool) {
	switch v := v.(type) {
	case int8:
		return int64(v), true
	case int16:
		return int64(v), true
	case int32:
		return int64(v), true
	case int64:
		return v, true
	case uint8:
		return int64(v), true
	case uint16:
		return int64(v), true
	case uint32:
		return int64(v), true
	case uint64:
		if v > 1<<63-1 {
			return 0, false
		}
		return int64(v), true
	}
	return 0, false
}

// Items returns the elements of a list or an array: clients differ in which
// they send if several values are meant.
func Items(v any) ([]any, bool) {
	switch v := v.(type) {
	case List:
		return v, true
	case Array:
		if v.Descriptor != nil {
			return nil, false
		}
		return v.Elems, true
	}
	return nil, false
}
