package service

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// MinSecret is the least length of a secret in bytes: a shorter one can be found
// by trying, out of a single signed body.
const MinSecret = 16

// Secret is bytes that no verb prints, inside any struct. The zero value has
// none.
type Secret struct {
	reveal func() []byte
}

// NewSecret returns text as a Secret.
func NewSecret(text string) Secret {
	b := []byte(text)
	return Secret{reveal: func() []byte { return b }}
}

// Reveal returns the bytes, nil if there are none. They must not be changed.
func (s Secret) Reveal() []byte {
	if s.reveal == nil {
		return nil
	}
	return s.reveal()
}

// UnmarshalText implements encoding.TextUnmarshaler. The empty text is no secret.
func (s *Secret) UnmarshalText(text []byte) error {
	switch {
	case len(text) == 0:
		*s = Secret{}
		return nil
	case len(text) < MinSecret:
		return errors.New("too short")
	}
	*s = NewSecret(string(text))
	return nil
}

// Format implements fmt.Formatter.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "(secret)") }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue("(secret)") }

// MarshalText implements encoding.TextMarshaler.
func (s Secret) MarshalText() ([]byte, error) { return []byte("(secret)"), nil }
