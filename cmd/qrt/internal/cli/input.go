package cli

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/queue-runtime/queue/envelope"
)

// readInput reads the file that args name, or standard input if they name
// none or "-".
func (a *app) readInput(args []string) ([]byte, error) {
	if len(args) == 0 || args[0] == "-" {
		return io.ReadAll(a.In)
	}
	return os.ReadFile(args[0])
}

// base64Marker is how an envelope begins in base64, which text transports store.
const base64Marker = "UVJFM"

// decodeEnvelope takes an envelope as bytes or, as it is found in a broker's
// console, as base64 text with white space around it.
func decodeEnvelope(b []byte) ([]byte, error) {
	if envelope.IsSealed(b) {
		return b, nil
	}
	text := bytes.TrimSpace(b)
	if !envelope.IsSealedText(text) {
		return nil, errors.New("this is no envelope: it begins with neither " + envelope.Marker + " nor its base64 form " + base64Marker)
	}
	out, err := base64.StdEncoding.Strict().DecodeString(string(text))
	if err != nil {
		return nil, errors.New("this begins like an envelope in base64 and is not strict base64 (RFC 4648, Section 4)")
	}
	return out, nil
}

// payload is a body in JSON: as text if it is some, else as base64.
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

// input is standard input. Its reads end with ctx, so that an interrupt takes effect
// although the user does not answer or the pipe stays empty.
type input struct {
	ctx context.Context //nolint:containedctx // of the one command that reads
	f   *os.File

	buf  []byte
	rest []byte // of buf, not yet handed on
	err  error
}

// inputBuffer is how much is read at once.
const inputBuffer = 64 << 10

// newInput makes reads of a file end with ctx; what is in memory does not block.
func newInput(ctx context.Context, r io.Reader) io.Reader {
	if f, ok := r.(*os.File); ok {
		return &input{ctx: ctx, f: f}
	}
	return r
}

// Read reads. Once ctx has ended, a read that is under way is left to itself: it
// ends with the process, which does then.
func (i *input) Read(p []byte) (int, error) {
	if len(i.rest) == 0 && i.err == nil {
		if i.buf == nil {
			i.buf = make([]byte, inputBuffer)
		}
		type result struct {
			n   int
			err error
		}
		done := make(chan result, 1)
		go func() {
			n, err := i.f.Read(i.buf)
			done <- result{n, err}
		}()
		select {
		case r := <-done:
			i.rest, i.err = i.buf[:r.n], r.err
		case <-i.ctx.Done():
			i.err = i.ctx.Err()
		}
	}
	n := copy(p, i.rest)
	if i.rest = i.rest[n:]; n > 0 || len(p) == 0 {
		return n, nil
	}
	return 0, i.err
}

// Unwrap returns what is read from.
func (i *input) Unwrap() io.Reader { return i.f }

// terminal reports whether r is a terminal.
func terminal(r io.Reader) bool {
	if u, wrapped := r.(interface{ Unwrap() io.Reader }); wrapped {
		r = u.Unwrap()
	}
	f, ok := r.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) //nolint:gosec // G115: a file descriptor fits
}
