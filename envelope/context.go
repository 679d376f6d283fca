package envelope

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

// Context is the metadata that travels beside an envelope, in fields of the
// broker, and is authenticated with it. Values are compared byte by byte.
type Context struct {
	// MessageID is never empty: a sender that was given none makes one.
	MessageID string
	// SessionID, ContentType and CorrelationID are not in the encoding when
	// empty: empty and absent are the same.
	SessionID     string
	ContentType   string
	CorrelationID string
	// Attributes may hold more than what is bound.
	Attributes map[string]string
}

// AddAttribute sets an attribute that arrived. It fails with ErrInvalidContext if
// one of that name arrived before: which of the two was bound cannot be known, so
// the message does not authenticate (qre1, Section 6.1).
func (c *Context) AddAttribute(name, value string) error {
	if _, ok := c.Attributes[name]; ok {
		return fmt.Errorf("%w: an attribute arrived twice", ErrInvalidContext)
	}
	if c.Attributes == nil {
		c.Attributes = make(map[string]string)
	}
	c.Attributes[name] = value
	return nil
}

// Tags of the entries of a context (qre1, Section 4.2).
const (
	tagMessageID     = 1
	tagSessionID     = 2
	tagContentType   = 3
	tagCorrelationID = 4
	tagAttributes    = 0x40
)

// BoundNames returns the names of attrs in the order of a header. It fails with
// ErrInvalidContext when there are more than MaxBound, or when one is empty or
// longer than MaxName bytes.
func BoundNames(attrs map[string]string) ([]string, error) {
	if len(attrs) == 0 {
		return nil, nil
	}
	if len(attrs) > MaxBound {
		// Before sorting: the number is the caller's.
		return nil, fmt.Errorf("%w: %d attributes: use at most %d", ErrInvalidContext, len(attrs), MaxBound)
	}
	names := make([]string, 0, len(attrs))
	for name := range attrs {
		names = append(names, name)
	}
	slices.Sort(names)
	if err := checkBound(names); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalidContext, err)
	}
	return names, nil
}

// AppendContext appends the encoding of c to dst: what Seal and Open take as
// contextData. bound are the names in the header; the values are those of
// c.Attributes. It allocates nothing if dst has room.
//
// It fails with ErrInvalidContext when the message ID is empty, when a bound name
// is not in c.Attributes, when bound could not stand in a header, or when a
// field exceeds 2^32-1 bytes. To a receiver, that is an authentication failure.
func AppendContext(dst []byte, c *Context, bound []string) ([]byte, error) {
	if c.MessageID == "" {
		return nil, fmt.Errorf("%w: message ID: empty", ErrInvalidContext)
	}
	if err := checkBound(bound); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalidContext, err)
	}
	if err := checkLengths(uint64(len(c.MessageID)), uint64(len(c.SessionID)), uint64(len(c.ContentType)), uint64(len(c.CorrelationID))); err != nil {
		return nil, err
	}
	dst = appendScalar(dst, tagMessageID, c.MessageID)
	dst = appendScalar(dst, tagSessionID, c.SessionID)
	dst = appendScalar(dst, tagContentType, c.ContentType)
	dst = appendScalar(dst, tagCorrelationID, c.CorrelationID)
	if len(bound) == 0 {
		return dst, nil
	}
	return appendAttributes(dst, c.Attributes, bound)
}

// appendAttributes appends the entry of the attributes.
func appendAttributes(dst []byte, attributes map[string]string, bound []string) ([]byte, error) {
	size, err := attributesSize(attributes, bound)
	if err != nil {
		return nil, err
	}
	dst = binary.BigEndian.AppendUint32(append(dst, tagAttributes), size)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(bound))) //nolint:gosec // G115: at most MaxBound
	for _, name := range bound {
		dst = appendLong(dst, name)
		dst = appendLong(dst, attributes[name])
	}
	return dst, nil
}

// attributesSize is the length of the entry of the attributes, in bytes.
func attributesSize(attributes map[string]string, bound []string) (uint32, error) {
	size := uint64(4)
	for i, name := range bound {
		value, ok := attributes[name]
		if !ok {
			return 0, fmt.Errorf("%w: attributes: bound name %d is missing", ErrInvalidContext, i)
		}
		size += 8 + uint64(len(name)) + uint64(len(value))
	}
	if size > math.MaxUint32 {
		return 0, tooLong("attributes")
	}
	return uint32(size), nil
}

// checkLengths refuses what four bytes of length cannot say.
func checkLengths(messageID, sessionID, contentType, correlationID uint64) error {
	switch {
	case messageID|sessionID|contentType|correlationID <= math.MaxUint32:
		return nil
	case messageID > math.MaxUint32:
		return tooLong("message ID")
	case sessionID > math.MaxUint32:
		return tooLong("session ID")
	case contentType > math.MaxUint32:
		return tooLong("content type")
	}
	return tooLong("correlation ID")
}

func tooLong(field string) error {
	return fmt.Errorf("%w: %s: longer than %d bytes", ErrInvalidContext, field, uint32(math.MaxUint32))
}

// appendScalar appends an entry, unless the value is empty.
func appendScalar(dst []byte, tag byte, value string) []byte {
	if value == "" {
		return dst
	}
	return appendLong(append(dst, tag), value)
}

// appendLong appends s after its length in four bytes.
func appendLong(dst []byte, s string) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(s))) //nolint:gosec // G115: checked by checkLengths and attributesSize
	return append(dst, s...)
}
