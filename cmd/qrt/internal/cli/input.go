package cli

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/queue-runtime/queue/envelope"
)

// readInput reads the file that args name, or standard input where they name
// none or "-".
func (a *app) readInput(args []string) ([]byte, error) {
	if len(args) == 0 || args[0] == "-" {
		return io.ReadAll(a.In)
	}
	return os.ReadFile(args[0])
}

// base64Marker is how an envelope begins in base64: text transports store it so.
const base64Marker = "UVJFMQ"

// decodeEnvelope takes an envelope as bytes or, as it is found in a broker's
// console, as base64 text with white space around it.
func decodeEnvelope(b []byte) ([]byte, error) {
	if envelope.IsSealed(b) {
		return b, nil
	}
	text := bytes.TrimSpace(b)
	if !bytes.HasPrefix(text, []byte(base64Marker)) {
		return nil, errors.New("this is no envelope: it begins with neither " + envelope.Marker + " nor its base64 form " + base64Marker)
	}
	out, err := base64.StdEncoding.Strict().DecodeString(string(text))
	if err != nil {
		return nil, errors.New("this begins like an envelope in base64 and is not strict base64 (RFC 4648, Section 4)")
	}
	return out, nil
}

// payload is a body in JSON: as text where it is some, else as base64.
type payload struct {
	Body   *string `json:"body,omitempty"`
	Base64 []byte  `json:"body_base64,omitempty"`
}

func newPayload(b []byte) payload {
	if utf8.Valid(b) {
		text := string(b)
		return payload{Body: &text}
	}
	return payload{Base64: b}
}

// attributes parses the values of --attr.
func attributes(list []string) (map[string]string, error) {
	if len(list) == 0 {
		return nil, nil //nolint:nilnil // no attributes is an answer
	}
	m := make(map[string]string, len(list))
	for _, pair := range list {
		name, value, ok := strings.Cut(pair, "=")
		if !ok || name == "" {
			return nil, usagef("--attr wants name=value")
		}
		if _, twice := m[name]; twice {
			return nil, usagef("--attr %s is given twice", name)
		}
		m[name] = value
	}
	return m, nil
}

// terminal reports whether somebody can type into r.
func terminal(r io.Reader) bool {
	f, ok := r.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) //nolint:gosec // G115: a file descriptor fits
}
