package sessionkey

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/queue-runtime/queue/internal/jsonscan"
)

// Field is the value at a path in a JSON body: names with dots between them, as
// in "pull_request.number", or a JSON Pointer (RFC 6901), as in
// "/pull_request/number", for names with dots. A number is the index in an
// array, from 0.
//
// A string is taken as it is; a number, true and false are taken as they are written.
// There is no session if the path leads nowhere, to null or to an empty string, or if
// the body is not JSON by its content type or by its first byte. An object or an array
// at the end of the path, malformed JSON on the way, and a value that Check refuses are
// errors that wrap ErrMessage. So is a name of the path that occurs twice in its object, also
// in other upper and lower case, because decoders differ in which one they take.
type Field string

const (
	maxSegments = 32      // of a path
	maxScan     = 1 << 20 // bytes of a body that are read
)

// path returns the segments of the path.
func (f Field) path() ([]string, error) {
	wrong := func(what string) ([]string, error) {
		return nil, fmt.Errorf("sessionkey: field %.100q: %w: %s", string(f), ErrStrategy, what)
	}
	pointer, isPointer := strings.CutPrefix(string(f), "/")
	separator := "."
	if isPointer {
		separator = "/"
	}
	segments := strings.Split(pointer, separator)
	if len(segments) > maxSegments {
		return wrong(fmt.Sprintf("%d names: use %d at most", len(segments), maxSegments))
	}
	for i, s := range segments {
		switch {
		case !utf8.ValidString(s):
			return wrong("it is not UTF-8")
		case !isPointer && s == "":
			return wrong("an empty name: use a JSON Pointer, as in /name, if names contain dots")
		case isPointer:
			// RFC 6901, Section 4: ~1 before ~0.
			s = strings.ReplaceAll(s, "~1", "/")
			if strings.Contains(strings.ReplaceAll(s, "~0", ""), "~") {
				return wrong("a ~ that is neither ~0 nor ~1")
			}
			segments[i] = strings.ReplaceAll(s, "~0", "~")
		}
	}
	return segments, nil
}

// SessionID implements Strategy.
func (f Field) SessionID(m *Message) (string, error) {
	path, err := f.path()
	if err != nil {
		return "", err
	}
	body := m.Body
	if !isJSON(m.ContentType, body) {
		return "", nil
	}
	if len(body) > maxScan {
		body = body[:maxScan]
	}
	s := scanner{jsonscan.Scanner{Data: body}}
	raw, err := s.find(path)
	if err == nil {
		var id string
		if id, err = value(raw); err == nil {
			err = Check(id)
		}
		if err == nil {
			return id, nil
		}
	}
	if errors.Is(err, errEnd) && len(body) < len(m.Body) {
		err = fmt.Errorf("%w: it is not in the first %d bytes of the body", ErrMessage, maxScan)
	}
	return "", fmt.Errorf("sessionkey: field %q: %w", string(f), err)
}

// isJSON judges by the content type, and by the first byte if there is none.
func isJSON(contentType string, body []byte) bool {
	if contentType != "" {
		media, _, _ := strings.Cut(contentType, ";")
		media = strings.ToLower(strings.TrimSpace(media))
		return strings.HasSuffix(media, "/json") || strings.HasSuffix(media, "+json") // RFC 6839, Section 3.1
	}
	body = bytes.TrimLeft(body, " \t\r\n")
	return len(body) > 0 && (body[0] == '{' || body[0] == '[')
}

// value is the session ID that a JSON value stands for. raw is nil if there is
// none.
func value(raw []byte) (string, error) {
	switch {
	case raw == nil || string(raw) == "null":
		return "", nil
	case raw[0] == '{' || raw[0] == '[':
		return "", fmt.Errorf("%w: an object or an array: name a field in it", ErrMessage)
	case len(raw) > len(`"`)+6*MaxID+len(`"`): // the longest escape is six bytes for one
		return "", fmt.Errorf("%w: a value of %d bytes: use %d at most", ErrMessage, len(raw), MaxID)
	case raw[0] != '"' && json.Valid(raw):
		return string(raw), nil
	}
	var s string
	if !utf8.Valid(raw) || json.Unmarshal(raw, &s) != nil {
		return "", fmt.Errorf("%w: a malformed value", ErrMessage)
	}
	return s, nil
}
