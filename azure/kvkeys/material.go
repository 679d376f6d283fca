package kvkeys

import (
	"crypto/subtle"
	"encoding/base64"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"

	"github.com/queue-runtime/queue/keys"
)

// mark tells a secret from another under the same ID without holding it.
type mark [32]byte

// markInfo separates a mark from everything else that is derived from a key.
const markInfo = "queue-runtime/kvkeys mark/v1\x00"

// take makes a key of a value, or returns the one that was given out before. One
// ID names one secret for ever, also after it was away.
func (p *Provider) take(at place, s azsecrets.Secret) (*keys.Key, error) {
	k, err := p.parse(at, s)
	if err != nil {
		return nil, err
	}
	okm, err := k.Expand([]byte(markInfo))
	if err != nil {
		return nil, p.failed(at, Invalid, "%v", err)
	}
	m := mark(okm[:32])
	p.mu.Lock()
	defer p.mu.Unlock()
	if was, ok := p.marks[at.id]; ok && subtle.ConstantTimeCompare(was[:], m[:]) != 1 {
		k.Destroy()
		return nil, p.failed(at, Invalid, "it held another secret before: restore that, and give a new key a new ID")
	}
	p.marks[at.id] = m
	if old := p.keys[at.id]; old != nil && old.Created().Equal(k.Created()) && old.Expires().Equal(k.Expires()) {
		k.Destroy()
		return old, nil
	}
	p.keys[at.id] = k
	return k, nil
}

// drop forgets a key that is gone. Callers that still use it are not disturbed; it is
// zeroed once it is no longer in use.
func (p *Provider) drop(id keys.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.keys, id)
}

// parse makes a key of a value. The SDK holds the value as a string, which cannot be
// zeroed; the bytes decoded here are.
func (p *Provider) parse(at place, s azsecrets.Secret) (*keys.Key, error) {
	if s.Value == nil {
		return nil, p.failed(at, Invalid, "it has no value")
	}
	text := strings.TrimSpace(*s.Value)
	if len(text) > 1024 {
		return nil, p.failed(at, Invalid, "its value has %d characters: put in 32 bytes in base64, which are 44", len(text))
	}
	secret, err := base64.StdEncoding.Strict().DecodeString(text)
	defer clear(secret)
	if err != nil || strings.ContainsAny(text, "\r\n") {
		// Without err, which tells of the value.
		return nil, p.failed(at, Invalid, "its value is not base64: put in 32 bytes in the standard alphabet, with padding and without line breaks")
	}
	if len(secret) != keys.Size {
		return nil, p.failed(at, Invalid, "its value has %d bytes: put in %d, in base64", len(secret), keys.Size)
	}
	var o keys.Options
	if a := s.Attributes; a != nil {
		o.Created, o.Expires = timeOf(a.Created), timeOf(a.Expires)
	}
	k, err := keys.New(at.id, secret, &o)
	if err != nil {
		return nil, p.failed(at, Invalid, "%v", err)
	}
	return k, nil
}
