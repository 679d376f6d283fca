package smkeys

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/queue-runtime/queue/keys"
)

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

// take makes a key of a value, or returns the one that was given out before. Once a message
// opened or was sealed under it, an ID names one secret for ever, also after it was away.
func (p *Provider) take(id keys.ID, where string, v *secretsmanager.GetSecretValueOutput) (*keys.Key, error) {
	k, err := parseKey(id, v)
	if err != nil {
		return nil, fmt.Errorf("smkeys: %s: %w", where, err)
	}
	if k, err = p.given.Take(k); err != nil {
		return nil, fmt.Errorf("smkeys: %s: %w", where, err)
	}
	return k, nil
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
