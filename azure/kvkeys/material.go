package kvkeys

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"

	"github.com/queue-runtime/queue/keys"
)

// take makes a key of a value, or returns the one that was given out before. Once a message
// opened or was sealed under it, an ID names one secret for ever, also after it was away.
func (p *Provider) take(at place, s azsecrets.Secret) (*keys.Key, error) {
	k, err := p.parse(at, s)
	if err != nil {
		return nil, err
	}
	if k, err = p.given.Take(k); err != nil {
		return nil, p.failed(at, Invalid, "%v", err)
	}
	return k, nil
}

// parse makes a key of a value. The SDK holds the value as a string, which cannot be
// zeroed; the bytes decoded here are.
func (p *Provider) parse(at place, s azsecrets.Secret) (*keys.Key, error) {
	if s.Value == nil {
		return nil, p.failed(at, Invalid, "it has no value")
	}
	text := strings.TrimSpace(*s.Value)
	var o keys.Options
	if a := s.Attributes; a != nil {
		o.Created, o.Expires = timeOf(a.Created), timeOf(a.Expires)
	}
	if strings.HasPrefix(text, "{") {
		return p.parseJSON(at, text, &o)
	}
	if len(text) > maxText {
		return nil, p.failed(at, Invalid, "its value has %d characters: put in 32 bytes in base64, which are 44", len(text))
	}
	return p.decode(at, text, nil, &o)
}

// maxText bounds a value that is base64 in characters, for the text of errors.
const maxText = 1024

// keyValue is the JSON form of a key: the fields of a key in a key file. A master key has
// secret, a sender key has sender and sender_secret.
type keyValue struct {
	ID           keys.ID   `json:"id"`
	Secret       *string   `json:"secret"`
	Sender       *string   `json:"sender"`
	SenderSecret *string   `json:"sender_secret"`
	Created      time.Time `json:"created"`
	Expires      time.Time `json:"expires"`
	Queues       []string  `json:"queues"`
}

// parseJSON makes a key of a value in JSON. Its times count before the attributes, of
// which the earlier expiry holds.
func (p *Provider) parseJSON(at place, text string, o *keys.Options) (*keys.Key, error) {
	var j keyValue
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		return nil, p.failed(at, Invalid, "its value begins like JSON and does not parse") // err tells of the value
	}
	if j.ID != "" && j.ID != at.id {
		return nil, p.failed(at, Invalid, "the JSON is of another key ID")
	}
	if !j.Created.IsZero() {
		o.Created = j.Created
	}
	if !j.Expires.IsZero() && (o.Expires.IsZero() || j.Expires.Before(o.Expires)) {
		o.Expires = j.Expires
	}
	o.Queues = j.Queues
	switch {
	case j.Secret != nil && j.Sender == nil && j.SenderSecret == nil:
		return p.decode(at, *j.Secret, nil, o)
	case j.Secret == nil && j.Sender != nil && j.SenderSecret != nil:
		return p.decode(at, *j.SenderSecret, j.Sender, o)
	}
	return nil, p.failed(at, Invalid, "a master key has secret, a sender key has sender and sender_secret, and no key has both")
}

// decode makes a key of base64: a sender key if sender is not nil.
func (p *Provider) decode(at place, text string, sender *string, o *keys.Options) (*keys.Key, error) {
	secret, err := base64.StdEncoding.Strict().DecodeString(text)
	defer clear(secret)
	if err != nil || strings.ContainsAny(text, "\r\n") {
		// Without err, which tells of the value.
		return nil, p.failed(at, Invalid, "its value is not base64: put in 32 bytes in the standard alphabet, with padding and without line breaks")
	}
	if len(secret) != keys.Size {
		return nil, p.failed(at, Invalid, "its value has %d bytes: put in %d, in base64", len(secret), keys.Size)
	}
	var k *keys.Key
	if sender == nil {
		k, err = keys.New(at.id, secret, o)
	} else {
		k, err = keys.NewSender(at.id, *sender, secret, o)
	}
	if err != nil {
		return nil, p.failed(at, Invalid, "%v", err)
	}
	return k, nil
}
