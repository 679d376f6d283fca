package sqldriver

import (
	"encoding/binary"
	"errors"
	"maps"
	"math/bits"
	"slices"
)

// errMalformed is every error of DecodeAttributes.
var errMalformed = errors.New("attributes as stored are not well formed")

// EncodeAttributes returns the stored form of attributes, or of a trace: for each entry, ascending by name, the name and
// the value, each after its length in bytes as an unsigned varint (package
// encoding/binary). Unlike JSON it carries every byte. Nil if m is empty.
func EncodeAttributes(m map[string]string) []byte {
	if len(m) == 0 {
		return nil
	}
	var b []byte
	for _, k := range slices.Sorted(maps.Keys(m)) {
		b = append(binary.AppendUvarint(b, uint64(len(k))), k...)
		v := m[k]
		b = append(binary.AppendUvarint(b, uint64(len(v))), v...)
	}
	return b
}

// AttributesSize returns how many bytes EncodeAttributes makes of m.
func AttributesSize(m map[string]string) int {
	n := 0
	for k, v := range m {
		n += sized(k) + sized(v)
	}
	return n
}

// sized is how many bytes s takes with its length.
func sized(s string) int { return (bits.Len(uint(len(s))|1)+6)/7 + len(s) }

// DecodeAttributes accepts only what EncodeAttributes makes: each name once, and in order.
func DecodeAttributes(b []byte) (map[string]string, error) {
	if len(b) == 0 {
		return nil, nil
	}
	m := make(map[string]string)
	for previous, first := "", true; len(b) > 0; first = false {
		var k, v string
		var ok bool
		if k, b, ok = cutString(b); !ok {
			return nil, errMalformed
		}
		if v, b, ok = cutString(b); !ok || !first && k <= previous {
			return nil, errMalformed
		}
		m[k], previous = v, k
	}
	return m, nil
}

// cutString takes a length and that many bytes from the front of b.
func cutString(b []byte) (s string, rest []byte, ok bool) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) { //nolint:gosec // G115: size is at most len(b)
		return "", nil, false
	}
	if size > 1 && b[size-1] == 0 {
		return "", nil, false // a longer form of a shorter length
	}
	end := size + int(n) //nolint:gosec // G115: n is at most len(b)
	return string(b[size:end]), b[end:], true
}
