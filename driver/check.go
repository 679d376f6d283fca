package driver

import (
	"bytes"
	"fmt"
	"maps"
	"strings"
	"unicode"
	"unicode/utf8"
)

// This file has what drivers check and copy alike, so that the same message, name or
// setting is refused by every broker with the same words.

// Limits of every broker; a driver may have narrower ones.
const (
	MaxName          = 255 // bytes of a queue's name, so that it can be an origin (qre1, Section 2.4)
	MaxID            = 128 // bytes of Message.ID
	MaxAttributeName = 255 // bytes of the name of an attribute (qre1, Section 2.8)
)

// CheckName refuses, with [InvalidName], what no queue can be called: an empty name,
// more than MaxName bytes, a name that is not UTF-8, and control characters. A driver
// checks the narrower rules of its broker.
func CheckName(queue string) error {
	switch {
	case queue == "":
		return Errorf(InvalidName, "the name is empty")
	case len(queue) > MaxName:
		return Errorf(InvalidName, "the name has %d bytes, the limit is %d", len(queue), MaxName)
	case !utf8.ValidString(queue):
		return Errorf(InvalidName, "the name is not valid UTF-8")
	case strings.ContainsFunc(queue, unicode.IsControl):
		return Errorf(InvalidName, "the name has a control character")
	}
	return nil
}

// Check refuses, with [Invalid], what no broker carries: a nil message, an ID that is
// not 1 to MaxID bytes of UTF-8, a negative TTL, and the name of an attribute that is
// not 1 to MaxAttributeName bytes.
func (m *Message) Check() error {
	switch {
	case m == nil:
		return Errorf(Invalid, "nil message")
	case m.ID == "":
		return Errorf(Invalid, "the message has no ID")
	case len(m.ID) > MaxID:
		return Errorf(Invalid, "the message ID has %d bytes, the limit is %d", len(m.ID), MaxID)
	case !utf8.ValidString(m.ID):
		return Errorf(Invalid, "the message ID is not valid UTF-8")
	case m.TTL < 0:
		return Errorf(Invalid, "TTL is negative")
	}
	return m.CheckAttributes()
}

// CheckAttributes refuses, with [Invalid], the name of an attribute that is not 1 to
// MaxAttributeName bytes.
func (m *Message) CheckAttributes() error {
	for name := range m.Attributes {
		if len(name) < 1 || len(name) > MaxAttributeName {
			return Errorf(Invalid, "the name of an attribute has %d bytes, it must have 1 to %d", len(name), MaxAttributeName)
		}
	}
	return nil
}

// Bytes returns how many bytes m has: its body, and every string of it.
func (m *Message) Bytes() int {
	n := len(m.Body) + len(m.ID) + len(m.SessionID) + len(m.CorrelationID) + len(m.ContentType) + len(m.DedupID)
	for k, v := range m.Attributes {
		n += len(k) + len(v)
	}
	for k, v := range m.Trace {
		n += len(k) + len(v)
	}
	return n
}

// Clone returns a copy of m that shares nothing with it.
func (m *Message) Clone() Message {
	c := *m
	c.Attributes, c.Trace, c.Body = maps.Clone(m.Attributes), maps.Clone(m.Trace), bytes.Clone(m.Body)
	return c
}

// Setting is a number among options, under the name of its field.
type Setting struct {
	Name  string
	Value int64
}

// CheckSettings refuses the first setting that is negative.
func CheckSettings(all []Setting) error {
	for _, s := range all {
		if s.Value < 0 {
			return fmt.Errorf("%s is negative", s.Name)
		}
	}
	return nil
}
