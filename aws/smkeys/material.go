package smkeys

import (
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/queue-runtime/queue/keys"
)

// mark tells a secret from another under the same ID without holding it.
type mark [32]byte

// markInfo separates a mark from everything else that is derived from a key.
const markInfo = "queue-runtime/smkeys mark/v1\x00"

func markOf(k *keys.Key) (mark, error) {
	okm, err := k.Expand([]byte(markInfo + k.SenderID()))
	return mark(okm[:32]), err
}

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

// secret is the base64 of the key's secret.
func (j *keyValue) secret() (string, error) {
	switch {
	case j.Secret != nil && j.Sender == nil && j.SenderSecret == nil:
		return *j.Secret, nil
	case j.Secret == nil && j.Sender != nil && j.SenderSecret != nil:
		return *j.SenderSecret, nil
	}
	return "", fmt.Errorf("%w: a master key has secret, a sender key has sender and sender_secret, and no key has both", keys.ErrInvalidKey)
}

// take makes a key of a value, or returns the one that was given out before. One
// ID names one secret for ever, also after it was away.
func (p *Provider) take(id keys.ID, where string, v *secretsmanager.GetSecretValueOutput) (*keys.Key, error) {
	k, err := parseKey(id, v)
	if err != nil {
		return nil, fmt.Errorf("smkeys: %s: %w", where, err)
	}
	m, err := markOf(k)
	if err != nil {
		return nil, fmt.Errorf("smkeys: %s: %w", where, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if was, ok := p.marks[id]; ok && subtle.ConstantTimeCompare(was[:], m[:]) != 1 {
		k.Destroy()
		return nil, fmt.Errorf("smkeys: %s: %w: it held another secret before: give a new key a new ID", where, keys.ErrInvalidKey)
	}
	p.marks[id] = m
	if old := p.keys[id]; old != nil && old.Alike(k) {
		k.Destroy()
		return old, nil
	}
	p.keys[id] = k
	return k, nil
}

// drop forgets a key that is gone. Callers that still use it are not disturbed; it is
// zeroed once it is no longer in use.
func (p *Provider) drop(id keys.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.keys, id)
}

// parseKey's errors never hold a part of the value.
func parseKey(id keys.ID, v *secretsmanager.GetSecretValueOutput) (*keys.Key, error) {
	defer clear(v.SecretBinary)
	o := keys.Options{Created: aws.ToTime(v.CreatedDate)}
	secret := v.SecretBinary
	var sender *string
	if v.SecretString != nil {
		text := strings.TrimSpace(*v.SecretString)
		if strings.HasPrefix(text, "{") {
			var j keyValue
			if err := json.Unmarshal([]byte(text), &j); err != nil {
				return nil, fmt.Errorf("%w: the JSON does not parse", keys.ErrInvalidKey)
			}
			if j.ID != "" && j.ID != id {
				return nil, fmt.Errorf("%w: the JSON is of another key ID", keys.ErrInvalidKey)
			}
			var err error
			if text, err = j.secret(); err != nil {
				return nil, err
			}
			if sender, o.Expires, o.Queues = j.Sender, j.Expires, j.Queues; !j.Created.IsZero() {
				o.Created = j.Created
			}
		}
		b, err := base64.StdEncoding.Strict().DecodeString(text)
		if err != nil {
			return nil, fmt.Errorf("%w: the string is not base64", keys.ErrInvalidKey)
		}
		defer clear(b)
		secret = b
	}
	if sender != nil {
		return keys.NewSender(id, *sender, secret, &o)
	}
	return keys.New(id, secret, &o)
}

// pointer says which keys are valid.
type pointer struct {
	Current keys.ID   `json:"current"`
	Valid   []keys.ID `json:"valid"`
}

// parsePointer reads an ID, or JSON.
func parsePointer(name string, v *secretsmanager.GetSecretValueOutput) (pointer, error) {
	var p pointer
	text := strings.TrimSpace(aws.ToString(v.SecretString))
	if v.SecretString == nil {
		text = strings.TrimSpace(string(v.SecretBinary))
	}
	if strings.HasPrefix(text, "{") {
		if err := json.Unmarshal([]byte(text), &p); err != nil {
			return p, fmt.Errorf("smkeys: %s: %w: the pointer's JSON does not parse", name, keys.ErrInvalidKey)
		}
	} else {
		p.Current = keys.ID(text)
	}
	named := p.Valid
	if p.Current != "" {
		named = append(named[:len(named):len(named)], p.Current)
	}
	for _, id := range named {
		// The text may be a secret that was put here by mistake: not repeated.
		if err := id.Validate(); err != nil {
			return pointer{}, fmt.Errorf("smkeys: %s: the pointer: %w", name, err)
		}
	}
	return p, nil
}
