package sessionkey

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
)

// errEnd is malformed JSON that would perhaps go on.
var errEnd = fmt.Errorf("%w: the JSON ends too early", ErrMessage)

// scanner finds a value in JSON without decoding what is around it. It takes
// time proportional to what it passes over, and no memory.
type scanner struct {
	data []byte
	pos  int
}

func (s *scanner) wrong() error {
	if s.pos >= len(s.data) {
		return errEnd
	}
	return fmt.Errorf("%w: malformed JSON at byte %d", ErrMessage, s.pos)
}

// next returns the first byte that is not white space, without taking it; 0 at
// the end.
func (s *scanner) next() byte {
	for ; s.pos < len(s.data); s.pos++ {
		switch c := s.data[s.pos]; c {
		case ' ', '\t', '\r', '\n':
		default:
			return c
		}
	}
	return 0
}

// take takes one byte if it is the next.
func (s *scanner) take(c byte) bool {
	if s.next() != c || s.pos >= len(s.data) {
		return false
	}
	s.pos++
	return true
}

// find returns the value at the path as it is written, or nil if there is none.
// Of an object or array it returns the first byte.
func (s *scanner) find(path []string) ([]byte, error) {
	for _, name := range path {
		found, err := false, error(nil)
		switch s.next() {
		case '{':
			found, err = s.member(name)
		case '[':
			found, err = s.element(name)
		case 0:
			err = s.wrong()
		}
		if !found {
			return nil, err
		}
	}
	switch c := s.next(); c {
	case '{', '[':
		return s.data[s.pos : s.pos+1], nil
	}
	start := s.pos
	if err := s.skip(); err != nil {
		return nil, err
	}
	if s.pos == len(s.data) && s.data[start] != '"' {
		return nil, errEnd // a number could go on, and nothing closes what it is in
	}
	return s.data[start:s.pos], nil
}

// member goes to the value of that name in an object.
func (s *scanner) member(name string) (bool, error) {
	s.pos++
	if s.take('}') {
		return false, nil
	}
	for {
		s.next()
		start := s.pos
		if err := s.skipString(); err != nil {
			return false, err
		}
		key := s.data[start:s.pos]
		if !s.take(':') {
			return false, s.wrong()
		}
		same, err := equal(key, name)
		if err != nil || same {
			return same, err
		}
		if err := s.skip(); err != nil {
			return false, err
		}
		if s.take('}') {
			return false, nil
		}
		if !s.take(',') {
			return false, s.wrong()
		}
	}
}

// equal compares a name as it is written, quotes included.
func equal(raw []byte, name string) (bool, error) {
	if inner := raw[1 : len(raw)-1]; bytes.IndexByte(inner, '\\') < 0 {
		return string(inner) == name, nil
	}
	if len(raw) > 2+6*len(name) { // the longest escape is six bytes for one
		return false, nil
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return false, fmt.Errorf("%w: a malformed name", ErrMessage)
	}
	return s == name, nil
}

// element goes to the value of that index in an array. A name is none (RFC 6901,
// Section 4: no sign, no leading zeros).
func (s *scanner) element(name string) (bool, error) {
	index, _ := strconv.ParseUint(name, 10, 31)
	if strconv.FormatUint(index, 10) != name { // what is malformed or too large is so, too
		return false, nil
	}
	s.pos++
	if s.take(']') {
		return false, nil
	}
	for ; index > 0; index-- {
		if err := s.skip(); err != nil {
			return false, err
		}
		if s.take(']') {
			return false, nil
		}
		if !s.take(',') {
			return false, s.wrong()
		}
	}
	return true, nil
}

// skip passes over one value.
func (s *scanner) skip() error {
	switch c := s.next(); {
	case c == '"':
		return s.skipString()
	case c == '{' || c == '[':
		return s.skipNested()
	case c == '-' || '0' <= c && c <= '9' || c == 't' || c == 'f' || c == 'n':
		for ; s.pos < len(s.data); s.pos++ {
			switch s.data[s.pos] {
			case ',', '}', ']', ' ', '\t', '\r', '\n':
				return nil
			}
		}
		return nil
	}
	return s.wrong()
}

// skipNested passes over an object or array by counting brackets.
func (s *scanner) skipNested() error {
	data, pos, depth := s.data, s.pos, 0
	for pos < len(data) {
		switch data[pos] {
		case '"':
			if pos = stringEnd(data, pos); pos < 0 {
				return errEnd
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				s.pos = pos + 1
				return nil
			}
		}
		pos++
	}
	return errEnd
}

// skipString passes over a string.
func (s *scanner) skipString() error {
	if s.pos >= len(s.data) || s.data[s.pos] != '"' {
		return s.wrong()
	}
	end := stringEnd(s.data, s.pos)
	if end < 0 {
		return errEnd
	}
	s.pos = end
	return nil
}

// stringEnd returns the place behind the string that begins with the quote at
// pos; -1 if it does not end.
func stringEnd(data []byte, pos int) int {
	for pos++; ; pos++ {
		n := bytes.IndexByte(data[pos:], '"')
		if n < 0 {
			return -1
		}
		// An even number of backslashes before the quote escape each other.
		escapes := 0
		for i := pos + n - 1; i >= pos && data[i] == '\\'; i-- {
			escapes++
		}
		pos += n
		if escapes%2 == 0 {
			return pos + 1
		}
	}
}
