package keys

import (
	"fmt"
	"io"
	"log/slog"
)

// String returns the key's name and nothing of its secret: keys.Key(ID), or
// keys.Key(ID@sender) for a sender key.
func (k *Key) String() string {
	if k == nil {
		return "keys.Key(nil)"
	}
	if k.sender != "" {
		return "keys.Key(" + string(k.id) + "@" + k.sender + ")"
	}
	return "keys.Key(" + string(k.id) + ")"
}

// GoString returns what String does.
func (k *Key) GoString() string { return k.String() }

// Format writes what String returns, whatever the verb and its flags.
func (k *Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// LogValue returns what String does.
func (k *Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText returns what String does, so that JSON and XML show the name. A
// key cannot be read back from it: UpdateFile is what stores keys. A gob of one is
// an error, because there is nothing exported in it.
func (k *Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }
