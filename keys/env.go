package keys

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// Env is a Provider of keys from environment variables, read once by NewEnv:
//
//	PREFIX          keys as id=base64, separated by commas or white space
//	PREFIX_KEY_*    one key as id=base64, for platforms that inject one secret a variable
//	PREFIX_CURRENT  the ID of the key to seal with; without it, nothing seals
//
// A secret is 32 bytes in padded standard base64 (RFC 4648, Section 4). A sender
// key is written id@sender=base64, with its sender ID. Keys from the environment
// have no times and are for any queue.
//
// Child processes inherit the environment, and other processes of the same user can
// read it: a key file (File) is the better place.
type Env struct{ ring Ring }

// NewEnv reads the variables of that prefix, for example QRT_KEYS. It fails with
// ErrInvalidKey when an entry is malformed, an ID appears twice, or the current key is
// not among them, and with ErrNotFound when there is no key at all. A prefix has ASCII
// letters, digits and _. Errors never quote the value of a variable.
func NewEnv(prefix string) (*Env, error) { return parseEnv(prefix, os.Environ()) }

func parseEnv(prefix string, environ []string) (*Env, error) {
	if prefix == "" {
		return nil, errors.New("keys: env: no prefix: use the name of a variable, for example QRT_KEYS")
	}
	if strings.ContainsFunc(prefix, notInName) {
		// The error does not quote the prefix: it may hold keys by mistake.
		return nil, errors.New("keys: env: the prefix is not the name of a variable, which has letters, digits and _ only: use for example QRT_KEYS")
	}
	e := new(Env)
	var current ID
	for _, v := range environ {
		name, value, _ := strings.Cut(v, "=")
		var entries []string
		switch {
		case name == prefix:
			entries = strings.FieldsFunc(value, separator)
		case name == prefix+"_CURRENT":
			current = ID(strings.TrimSpace(value))
		case strings.HasPrefix(name, prefix+"_KEY_"):
			if entries = strings.FieldsFunc(value, separator); len(entries) != 1 {
				return nil, fmt.Errorf("keys: env: %w: %s: want one id=base64", ErrInvalidKey, name)
			}
		}
		for i, entry := range entries {
			k, err := parseEntry(entry)
			if err == nil {
				err = e.ring.Add(k)
			}
			if err != nil {
				return nil, fmt.Errorf("keys: env: %s: entry %d: %w", name, i+1, err)
			}
		}
	}
	if len(e.ring.keys) == 0 {
		return nil, fmt.Errorf("keys: env: %w: set %s to id=base64", ErrNotFound, prefix)
	}
	if current != "" {
		if err := e.ring.SetCurrent(current); err != nil {
			return nil, fmt.Errorf("keys: env: %w: %s_CURRENT names a key that is not there", ErrInvalidKey, prefix)
		}
	}
	return e, nil
}

func notInName(r rune) bool {
	return r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
}

func separator(r rune) bool { return strings.ContainsRune(", \t\r\n", r) }

// parseEntry reads id=base64 or id@sender=base64. Its errors repeat nothing of the
// entry: an operator may have swapped the two.
func parseEntry(entry string) (*Key, error) {
	id, text, ok := strings.Cut(entry, "=")
	if !ok {
		return nil, fmt.Errorf("%w: no =: want id=base64", ErrInvalidKey)
	}
	// No ID has an @.
	id, sender, isSender := strings.Cut(id, "@")
	if err := ID(id).Validate(); err != nil {
		return nil, err
	}
	secret, err := base64.StdEncoding.Strict().DecodeString(text)
	defer clear(secret)
	if err != nil {
		return nil, fmt.Errorf("%w: the secret is not padded standard base64", ErrInvalidKey)
	}
	if isSender {
		return NewSender(ID(id), sender, secret, nil)
	}
	return New(ID(id), secret, nil)
}

// GetKey implements Provider. It does not look at ctx: it never waits.
func (e *Env) GetKey(ctx context.Context, id ID) (*Key, error) {
	k, err := e.ring.GetKey(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("keys: env: %w: %q", ErrNotFound, clip(id))
	}
	return k, nil
}

// CurrentKeyID implements Provider. It fails with ErrNotFound when
// PREFIX_CURRENT was not set.
func (e *Env) CurrentKeyID(ctx context.Context) (ID, error) {
	id, err := e.ring.CurrentKeyID(ctx)
	if err != nil {
		return "", fmt.Errorf("keys: env: %w: no key is current: set the variable _CURRENT of the prefix", ErrNotFound)
	}
	return id, nil
}

// ValidKeyIDs implements Provider.
func (e *Env) ValidKeyIDs(context.Context) ([]ID, error) { return slices.Clone(e.ring.IDs()), nil }
