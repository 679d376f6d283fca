package keys

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"
)

// scanner reads JSON from memory that can be cleared: no secret becomes a
// string or is left in a decoder's buffer.
type scanner struct {
	data []byte
	pos  int
}

func (p *scanner) place() string {
	return fmt.Sprintf("line %d", 1+bytes.Count(p.data[:p.pos], []byte{'\n'}))
}

func (p *scanner) wrong(what string) error {
	return fmt.Errorf("%w: %s: %s", ErrInvalidKey, p.place(), what)
}

func (p *scanner) unknown() error {
	return p.wrong("an unknown name: use current and keys, and for a key id, secret or sender and sender_secret, created, expires, queues")
}

// next returns the first byte that is not white space, without taking it; 0 at
// the end.
func (p *scanner) next() byte {
	for p.pos < len(p.data) {
		switch c := p.data[p.pos]; c {
		case ' ', '\t', '\r', '\n':
			p.pos++
		default:
			return c
		}
	}
	return 0
}

// take takes one byte if it is the next.
func (p *scanner) take(c byte) bool {
	if c != p.next() {
		return false
	}
	p.pos++
	return true
}

func (p *scanner) end() error {
	if p.next(); p.pos < len(p.data) {
		return p.wrong("something behind the object")
	}
	return nil
}

// object calls member for each name, with its value next.
func (p *scanner) object(member func(name string) error) error {
	if !p.take('{') {
		return p.wrong("want an object")
	}
	if p.take('}') {
		return nil
	}
	seen := make(map[string]struct{})
	for {
		name, err := p.string()
		if err != nil {
			return err
		}
		if _, ok := seen[name]; ok {
			return p.wrong("a name is there twice")
		}
		seen[name] = struct{}{}
		if !p.take(':') {
			return p.wrong("want a colon")
		}
		if err := member(name); err != nil {
			return err
		}
		if p.take('}') {
			return nil
		}
		if !p.take(',') {
			return p.wrong("want a comma or the end of the object")
		}
	}
}

// array calls element with each value next.
func (p *scanner) array(element func() error) error {
	if !p.take('[') {
		return p.wrong("want an array")
	}
	if p.take(']') {
		return nil
	}
	for {
		if err := element(); err != nil {
			return err
		}
		if p.take(']') {
			return nil
		}
		if !p.take(',') {
			return p.wrong("want a comma or the end of the array")
		}
	}
}

// raw returns what stands between the quotes, escapes included.
func (p *scanner) raw() ([]byte, error) {
	if !p.take('"') {
		return nil, p.wrong("want a string")
	}
	start := p.pos
	for ; p.pos < len(p.data); p.pos++ {
		switch p.data[p.pos] {
		case '\\':
			p.pos++
		case '"':
			p.pos++
			return p.data[start : p.pos-1], nil
		}
	}
	p.pos = len(p.data)
	return nil, p.wrong("a string does not end")
}

func (p *scanner) string() (s string, err error) {
	p.next()
	start := p.pos
	if _, err := p.raw(); err != nil {
		return "", err
	}
	if json.Unmarshal(p.data[start:p.pos], &s) != nil {
		return "", p.wrong("a malformed string")
	}
	return s, nil
}

// strings reads an array of strings.
func (p *scanner) strings() (list []string, err error) {
	err = p.array(func() error {
		s, err := p.string()
		list = append(list, s)
		return err
	})
	return list, err
}

// base64 reads padded standard base64. A slash may be escaped, as some writers
// of JSON do.
func (p *scanner) base64() ([]byte, error) {
	raw, err := p.raw()
	if err != nil {
		return nil, err
	}
	text := bytes.ReplaceAll(raw, []byte(`\/`), []byte(`/`))
	defer clear(text)
	// Decode ignores line breaks, also when strict.
	if bytes.ContainsAny(text, "\r\n") {
		return nil, p.wrong("the secret is not padded standard base64")
	}
	secret := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Strict().Decode(secret, text)
	if err != nil {
		clear(secret)
		return nil, p.wrong("the secret is not padded standard base64")
	}
	return secret[:n], nil
}

// time reads an RFC 3339 time; null is none.
func (p *scanner) time() (time.Time, error) {
	if p.next() == 'n' && bytes.HasPrefix(p.data[p.pos:], []byte("null")) {
		p.pos += len("null")
		return time.Time{}, nil
	}
	s, err := p.string()
	if err != nil {
		return time.Time{}, err
	}
	var t time.Time
	if t.UnmarshalText([]byte(s)) != nil { // stricter than time.Parse
		return time.Time{}, p.wrong("want a time as in RFC 3339, for example 2026-01-31T12:00:00Z")
	}
	return t, nil
}
