// Package hooks is GitHub's side of the examples: real webhooks, their
// signatures, and their delivery over HTTP.
//
// The bodies are those that github.com/go-playground/webhooks tests itself with,
// read from the module cache. They are not copied into this repository.
package hooks

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	_ "github.com/go-playground/webhooks/v6/github" // keeps its test data at hand
)

const module = "github.com/go-playground/webhooks/v6"

// Hook is one webhook on its way.
type Hook struct {
	Event    string // X-GitHub-Event
	Delivery string // X-GitHub-Delivery
	Body     []byte
}

// SHA256 is the hash of the body, in hexadecimal.
func (h *Hook) SHA256() string {
	sum := sha256.Sum256(h.Body)
	return hex.EncodeToString(sum[:])
}

// Again returns the same webhook as another delivery.
func (h *Hook) Again() Hook { return Hook{Event: h.Event, Delivery: newGUID(), Body: h.Body} }

// Load returns the real webhooks, each with a GUID of its own, in the order of
// their names. It asks the go command where they are.
func Load(ctx context.Context) ([]Hook, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	dir := strings.TrimSpace(string(out))
	if err != nil || dir == "" {
		return nil, errors.Join(fmt.Errorf("hooks: %s is not in the module cache: run this within the repository, after go mod download", module), err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "testdata", "github", "*.json"))
	if err != nil || len(files) == 0 {
		return nil, errors.Join(fmt.Errorf("hooks: %s has no test data", module), err)
	}
	all := make([]Hook, len(files))
	for i, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		all[i] = Hook{Event: strings.ReplaceAll(name, "-", "_"), Delivery: newGUID(), Body: body}
	}
	return all, nil
}

// newGUID returns a random UUID, version 4 (RFC 9562, Section 5.4).
func newGUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// Sign returns the X-Hub-Signature-256 of a body. It shares no code with what
// verifies it.
func Sign(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

// Answer is what the router said.
type Answer struct {
	Status int
	Text   string
	Header http.Header
}

// maxAnswer bounds what is read of an answer.
const maxAnswer = 4 << 10

// Request returns the request that delivers h, signed.
func Request(ctx context.Context, url, secret string, h *Hook) (*http.Request, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(h.Body))
	if err != nil {
		return nil, err
	}
	q.Header.Set("Content-Type", "application/json")
	q.Header.Set("User-Agent", "GitHub-Hookshot/example")
	q.Header.Set("X-GitHub-Event", h.Event)
	q.Header.Set("X-GitHub-Delivery", h.Delivery)
	q.Header.Set("X-Hub-Signature-256", Sign(secret, h.Body))
	return q, nil
}

// Do sends a request and reads the answer.
func Do(c *http.Client, q *http.Request) (Answer, error) {
	r, err := c.Do(q) //nolint:gosec // G704: the caller says where the router is
	if err != nil {
		return Answer{}, err
	}
	text, err := io.ReadAll(io.LimitReader(r.Body, maxAnswer))
	return Answer{r.StatusCode, strings.TrimSpace(string(text)), r.Header}, errors.Join(err, r.Body.Close())
}

// Post delivers h, signed.
func Post(ctx context.Context, c *http.Client, url, secret string, h *Hook) (Answer, error) {
	q, err := Request(ctx, url, secret, h)
	if err != nil {
		return Answer{}, err
	}
	return Do(c, q)
}
