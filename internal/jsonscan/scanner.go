// Package jsonscan walks through JSON that lies in memory. It copies and decodes
// nothing: package keys reads secrets with it, which must not stay behind in a
// decoder, and package sessionkey finds one field of a body without reading the rest.
//
// What is passed over is checked no further than is needed to find its end. Values are
// handed out as they are written; the caller decodes them.
package jsonscan

import (
	"bytes"
	"fmt"
)

// Scanner is a place in a JSON text (RFC 8259).
type Scanner struct {
	Data []byte
	Pos  int // the first byte that was not taken; at most len(Data)
}

// Error says what a Scanner wanted, and never what it found.
type Error struct {
	Want string // in words, such as "want a colon"
	Pos  int    // the byte in question
	End  bool   // the text ends there: it could go on
}

func (e *Error) Error() string { return fmt.Sprintf("malformed JSON at byte %d: %s", e.Pos, e.Want) }

func (s *Scanner) wrong(want string) *Error {
	return &Error{Want: want, Pos: s.Pos, End: s.Pos >= len(s.Data)}
}

// Next returns the first byte that is not white space, without taking it; 0 at the end.
func (s *Scanner) Next() byte {
	for ; s.Pos < len(s.Data); s.Pos++ {
		switch c := s.Data[s.Pos]; c {
		case ' ', '\t', '\r', '\n':
		default:
			return c
		}
	}
	return 0
}

// Take takes c, which is not 0, if it is the next byte.
func (s *Scanner) Take(c byte) bool {
	if s.Next() != c {
		return false
	}
	s.Pos++
	return true
}

// Object takes an object. For each member it calls member with the name as it is
// written, quotes and escapes included; member takes the value. An error of member ends
// the scan and is returned as it is, with the Scanner where member left it. All other
// errors are *Error.
func (s *Scanner) Object(member func(name []byte) error) error {
	if !s.Take('{') {
		return s.wrong("want an object")
	}
	if s.Take('}') {
		return nil
	}
	for {
		name, err := s.String()
		if err != nil {
			return err
		}
		if !s.Take(':') {
			return s.wrong("want a colon")
		}
		if err := member(name); err != nil {
			return err
		}
		if s.Take('}') {
			return nil
		}
		if !s.Take(',') {
			return s.wrong("want a comma or the end of the object")
		}
	}
}

// Array takes an array and calls element for each value, which element takes. Errors
// are those of Object.
func (s *Scanner) Array(element func() error) error {
	if !s.Take('[') {
		return s.wrong("want an array")
	}
	if s.Take(']') {
		return nil
	}
	for {
		if err := element(); err != nil {
			return err
		}
		if s.Take(']') {
			return nil
		}
		if !s.Take(',') {
			return s.wrong("want a comma or the end of the array")
		}
	}
}

// String takes a string and returns it as it is written, quotes and escapes included.
func (s *Scanner) String() ([]byte, error) {
	if s.Next() != '"' {
		return nil, s.wrong("want a string")
	}
	start, end := s.Pos, stringEnd(s.Data, s.Pos)
	if end < 0 {
		s.Pos = len(s.Data)
		return nil, s.wrong("a string does not end")
	}
	s.Pos = end
	return s.Data[start:end], nil
}

// Skip takes one value, whatever it is. A number, or one of the words, that ends with
// the text may have been cut.
func (s *Scanner) Skip() error {
	switch c := s.Next(); {
	case c == '"':
		_, err := s.String()
		return err
	case c == '{' || c == '[':
		return s.skipNested()
	case c == '-' || '0' <= c && c <= '9' || c == 't' || c == 'f' || c == 'n':
		for ; s.Pos < len(s.Data); s.Pos++ {
			switch s.Data[s.Pos] {
			case ',', '}', ']', ' ', '\t', '\r', '\n':
				return nil
			}
		}
		return nil
	}
	return s.wrong("want a value")
}

// skipNested takes an object or array by counting brackets.
func (s *Scanner) skipNested() error {
	data, pos, depth := s.Data, s.Pos, 0
	for pos >= 0 && pos < len(data) {
		switch data[pos] {
		case '"':
			pos = stringEnd(data, pos)
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				s.Pos = pos + 1
				return nil
			}
		}
		pos++
	}
	s.Pos = len(data)
	return s.wrong("an object or array does not end")
}

// stringEnd returns the place behind the string that begins with the quote at pos; -1 if
// it does not end.
func stringEnd(data []byte, pos int) int {
	for pos++; ; pos++ {
		n := bytes.IndexByte(data[pos:], '"')
		if n < 0 {
			return -1
		}
		// An even number of backslashes before the quote escape each other.
		escapes := 0
		for i := pos + n - 1; data[i] == '\\'; i-- { // not beyond the quote before pos
			escapes++
		}
		pos += n
		if escapes%2 == 0 {
			return pos + 1
		}
	}
}
