package keys

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/queue-runtime/queue/internal/jsonscan"
)

// scanner reads JSON from memory that can be cleared: no secret becomes a
// string or is left in a decoder's buffer.
type scanner struct {
	jsonscan.Scanner
}

func (p *scanner) place() string {
	return fmt.Sprintf("line %d", 1+bytes.Count(p.Data[:p.Pos], []byte{'\n'}))
}

func (p *scanner) wrong(what string) error {
	return fmt.Errorf("%w: %s: %s", ErrInvalidKey, p.place(), what)
}

func (p *scanner) unknown() error {
	return p.wrong("an unknown name: use current and keys, and for a key id, secret or sender and sender_secret, created, expires, queues")
}

func (p *scanner) end() error {
	if p.Next(); p.Pos < len(p.Data) {
		return p.wrong("something behind the object")
	}
	return nil
}

// located is an error of this package for one of jsonscan, at its line.
func (p *scanner) located(err error) error {
	var e *jsonscan.Error
	if !errors.As(err, &e) {
		return err
	}
	return p.wrong(e.Want)
}

// object calls member for each name, with its value next.
func (p *scanner) object(member func(name string) error) error {
	seen := make(map[string]struct{})
	return p.located(p.Object(func(raw []byte) error {
		name, err := p.decode(raw)
		if err != nil {
			return err
		}
		if _, ok := seen[name]; ok {
			return p.wrong("a name is there twice")
		}
		seen[name] = struct{}{}
		return member(name)
	}))
}

// array calls element with each value next.
func (p *scanner) array(element func() error) error { return p.located(p.Array(element)) }

func (p *scanner) string() (string, error) {
	raw, err := p.String()
	if err != nil {
		return "", p.located(err)
	}
	return p.decode(raw)
}

// decode decodes a string as it is written.
func (p *scanner) decode(raw []byte) (s string, err error) {
	if json.Unmarshal(raw, &s) != nil {
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
	raw, err := p.String()
	if err != nil {
		return nil, p.located(err)
	}
	text := bytes.ReplaceAll(raw[1:len(raw)-1], []byte(`\/`), []byte(`/`))
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
	if p.Next() == 'n' && bytes.HasPrefix(p.Data[p.Pos:], []byte("null")) {
		p.Pos += len("null")
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
