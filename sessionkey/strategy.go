package sessionkey

import (
	"errors"
	"fmt"
	"unicode"
	"unicode/utf8"
)

// MaxID bounds a session ID in bytes: what Service Bus takes as SessionId and
// SQS as MessageGroupId.
const MaxID = 128

var (
	// ErrStrategy reports that the strategy cannot work with any message.
	ErrStrategy = errors.New("invalid session strategy")
	// ErrMessage reports that what the strategy finds in the message is no
	// usable session ID.
	ErrMessage = errors.New("no usable session ID")
)

// Message is what a strategy sees of a message. It must not change it.
type Message struct {
	Body []byte
	// ContentType is the media type of Body. Empty means that Body is looked
	// at, and is JSON if it begins with an object or an array.
	ContentType string
	Attributes  map[string]string
}

// Strategy derives a session ID from a message. The empty string means that the
// message is in no session. Implementations are safe for concurrent use and
// return only what Check accepts.
type Strategy interface {
	SessionID(m *Message) (string, error)
}

// Check returns nil for what may be a session ID, the empty one included, and
// else an error that wraps ErrMessage.
func Check(id string) error {
	if len(id) > MaxID {
		return fmt.Errorf("%w: %d bytes: use %d at most", ErrMessage, len(id), MaxID)
	}
	if !utf8.ValidString(id) {
		return fmt.Errorf("%w: it is not UTF-8", ErrMessage)
	}
	for i, r := range id {
		if unicode.IsControl(r) {
			return fmt.Errorf("%w: a control character at byte %d", ErrMessage, i)
		}
	}
	return nil
}

// Validate says what is wrong with a strategy of this package, and with those
// that it is made of: nil, an empty Composite or Fallback, a malformed path. The
// error wraps ErrStrategy. Strategies of other packages are taken as valid.
func Validate(s Strategy) error {
	switch s := s.(type) {
	case nil:
		return fmt.Errorf("sessionkey: %w: nil: use None", ErrStrategy)
	case Field:
		_, err := s.path()
		return err
	case Attribute:
		return s.validate()
	case Func:
		if s == nil {
			return fmt.Errorf("sessionkey: func: %w: nil: use None", ErrStrategy)
		}
	case Composite:
		return validateAll("composite", s)
	case Fallback:
		return validateAll("fallback", s)
	}
	return nil
}

func validateAll(kind string, list []Strategy) error {
	if len(list) == 0 {
		return fmt.Errorf("sessionkey: %s: %w: it is empty", kind, ErrStrategy)
	}
	for i, s := range list {
		if s == nil {
			return fmt.Errorf("sessionkey: %s: %w: strategy %d is nil: use None", kind, ErrStrategy, i+1)
		}
		if err := Validate(s); err != nil {
			return err
		}
	}
	return nil
}

// None has no session for any message.
type None struct{}

// SessionID implements Strategy.
func (None) SessionID(*Message) (string, error) { return "", nil }

// Func is a function as a strategy. What it returns is checked; its error is
// passed on.
type Func func(m *Message) (string, error)

// SessionID implements Strategy.
func (f Func) SessionID(m *Message) (string, error) {
	if err := Validate(f); err != nil {
		return "", err
	}
	id, err := f(m)
	if err != nil {
		return "", err
	}
	if err := Check(id); err != nil {
		return "", fmt.Errorf("sessionkey: func: %w", err)
	}
	return id, nil
}

// Attribute is the value of an attribute of that name; none if it is not there
// or empty.
type Attribute string

func (a Attribute) validate() error {
	if a == "" {
		return fmt.Errorf("sessionkey: attribute: %w: no name", ErrStrategy)
	}
	return nil
}

// SessionID implements Strategy.
func (a Attribute) SessionID(m *Message) (string, error) {
	if err := a.validate(); err != nil {
		return "", err
	}
	id := m.Attributes[string(a)]
	if err := Check(id); err != nil {
		return "", fmt.Errorf("sessionkey: attribute %q: %w", string(a), err)
	}
	return id, nil
}

// Fallback is the first of its strategies that has a session. An error of one
// ends it: else a malformed message would silently go to another session.
type Fallback []Strategy

// SessionID implements Strategy.
func (f Fallback) SessionID(m *Message) (string, error) {
	if len(f) == 0 {
		return "", Validate(f)
	}
	for _, s := range f {
		if s == nil {
			return "", Validate(f)
		}
		id, err := s.SessionID(m)
		if err != nil {
			return "", err
		}
		if id != "" {
			return id, nil
		}
	}
	return "", nil
}
