// Package attributes reads and writes attributes as the SQL drivers store them, for attackers.
// It shares no code with those drivers, so that an error there cannot hide an attack.
package attributes

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
)

// Encode writes a map: names ascending, each name and value after its length as a varint.
// It is empty, and not nil, without entries.
func Encode(m map[string]string) []byte {
	b := []byte{}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		for _, s := range [...]string{name, m[name]} {
			b = binary.AppendUvarint(b, uint64(len(s)))
			b = append(b, s...)
		}
	}
	return b
}

// Decode reads what Encode writes. It does not insist on the order of names.
func Decode(b []byte) (map[string]string, error) {
	if len(b) == 0 {
		return nil, nil
	}
	r := bytes.NewReader(b)
	next := func() string {
		n, err := binary.ReadUvarint(r)
		if err != nil || n > uint64(r.Len()) { //nolint:gosec // G115: a length
			return ""
		}
		s := make([]byte, n)
		_, _ = r.Read(s)
		return string(s)
	}
	m := make(map[string]string)
	for r.Len() > 0 {
		name := next()
		if name == "" {
			return nil, errors.New("attributes are not in their stored form")
		}
		m[name] = next()
	}
	return m, nil
}
