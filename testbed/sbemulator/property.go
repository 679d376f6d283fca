package sbemulator

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/queue-runtime/queue/testbed/sbemulator/internal/wire"
)

// fromWire returns the Go value of an application property.
func fromWire(v any) any {
	switch v := v.(type) {
	case nil, bool, string, uint8, uint16, uint32, uint64, int8, int16, int32, int64, float32, float64:
		return v
	case []byte:
		return bytes.Clone(v)
	case wire.Timestamp:
		return v.Time()
	case wire.UUID:
		return [16]byte(v)
	case wire.Symbol:
		return string(v)
	}
	return readable(v)
}

// toWire is the reverse of fromWire.
func toWire(v any) (any, bool) {
	switch v := v.(type) {
	case nil, bool, string, uint8, uint16, uint32, uint64, int8, int16, int32, int64, float32, float64:
		return v, true
	case int:
		return int64(v), true
	case []byte:
		return bytes.Clone(v), true
	case time.Time:
		return wire.TimestampOf(v), true
	case [16]byte:
		return wire.UUID(v), true
	}
	return nil, false
}

// sameValue compares two values of application properties.
func sameValue(a, b any) bool {
	x, ok1 := toWire(a)
	y, ok2 := toWire(b)
	return ok1 && ok2 && bytes.Equal(wire.Append(nil, x), wire.Append(nil, y))
}

// readable shows an ID of any type.
func readable(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case []byte:
		return hex.EncodeToString(v)
	case wire.UUID:
		return fmt.Sprintf("%x-%x-%x-%x-%x", v[:4], v[4:6], v[6:8], v[8:10], v[10:])
	}
	return fmt.Sprint(v)
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func nonEmpty(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
