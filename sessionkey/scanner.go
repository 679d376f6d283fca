package sessionkey

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/queue-runtime/queue/internal/jsonscan"
)

var (
	// errEnd is malformed JSON that would perhaps go on.
	errEnd = fmt.Errorf("%w: the JSON ends too early", ErrMessage)
	// errFound ends a scan at the value that was looked for.
	errFound = errors.New("found")
)

// scanner finds a value in JSON without decoding what is around it. It takes
// time proportional to what it passes over, and no memory.
type scanner struct {
	jsonscan.Scanner
}

// find returns the value at the path as it is written, or nil if there is none.
// Of an object or array it returns the first byte.
func (s *scanner) find(path []string) ([]byte, error) {
	for _, name := range path {
		err := s.descend(name)
		if err == nil {
			return nil, nil
		}
		if !errors.Is(err, errFound) {
			return nil, located(err)
		}
	}
	switch s.Next() {
	case '{', '[':
		return s.Data[s.Pos : s.Pos+1], nil
	}
	start := s.Pos
	if err := s.Skip(); err != nil {
		return nil, located(err)
	}
	if s.Pos == len(s.Data) && s.Data[start] != '"' {
		return nil, errEnd // a number could go on, and nothing closes what it is in
	}
	return s.Data[start:s.Pos], nil
}

// descend goes to the value of that name, or of that index, in the next value. It
// returns errFound there, and nil if there is no such value.
func (s *scanner) descend(name string) error {
	switch s.Next() {
	case '{':
		return s.member(name)
	case '[':
		// A name is no index (RFC 6901, Section 4: no sign, no leading zeros).
		index, _ := strconv.ParseUint(name, 10, 31)
		if strconv.FormatUint(index, 10) != name { // what is malformed or too large is so, too
			return nil
		}
		return s.Array(func() error {
			if index == 0 {
				return errFound
			}
			index--
			return s.Skip()
		})
	case 0:
		return s.Skip() // which says what is wrong
	}
	return nil
}

// member is descend for an object. A name that comes twice is refused, also in other case:
// decoders differ in which one counts, so that a message could be handled as another
// session's. What comes behind the end of the bytes that are read is not looked at.
func (s *scanner) member(name string) error {
	at, alike := -1, 0
	err := s.Object(func(raw []byte) error {
		same, similar, err := equal(raw, name)
		if err != nil {
			return err
		}
		if similar {
			alike++
		}
		if same && at < 0 {
			s.Next()
			at = s.Pos
		}
		return s.Skip()
	})
	if at < 0 {
		return err
	}
	if alike > 1 {
		return fmt.Errorf("%w: the name %.100q comes twice in one object, or in upper and lower case", ErrMessage, name)
	}
	s.Pos = at // what is wrong behind it is the decoder's affair
	return errFound
}

// located is an error of this package for one of jsonscan.
func located(err error) error {
	var e *jsonscan.Error
	switch {
	case !errors.As(err, &e):
		return err
	case e.End:
		return errEnd
	}
	return fmt.Errorf("%w: malformed JSON at byte %d", ErrMessage, e.Pos)
}

// equal compares a name as it is written, quotes included. similar says that both are the
// same but for upper and lower case, as encoding/json takes them.
func equal(raw []byte, name string) (same, similar bool, err error) {
	if inner := raw[1 : len(raw)-1]; bytes.IndexByte(inner, '\\') < 0 {
		return string(inner) == name, strings.EqualFold(string(inner), name), nil
	}
	if len(raw) > 2+6*len(name) { // the longest escape is six bytes for one
		return false, false, nil
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return false, false, fmt.Errorf("%w: a malformed name", ErrMessage)
	}
	return s == name, strings.EqualFold(s, name), nil
}
