package replay

import (
	"fmt"

	"github.com/queue-runtime/queue/internal/replaystate"
)

// Bounds of the known keys of a group.
const (
	// MaxKnownKeys is how many a group has. With more, those that were noted first go.
	MaxKnownKeys = replaystate.MaxKnownKeys
	// MaxName bounds the names in a KnownKey in bytes.
	MaxName = replaystate.MaxName
)

// KnownKey says that messages of a queue opened under a key.
type KnownKey struct {
	Queue string // 1 to MaxName bytes
	ID    string // of the key, 1 to MaxName bytes
	// Value is the key's check value (qre1, Section 3.4): it tells the secret from another
	// one under the same ID, and says nothing about it.
	Value [16]byte
}

func (k *KnownKey) validate() error {
	if len(k.Queue) < 1 || len(k.Queue) > MaxName || len(k.ID) < 1 || len(k.ID) > MaxName {
		return fmt.Errorf("%w: a queue's name of %d bytes and a key ID of %d: use 1 to %d", ErrInvalid, len(k.Queue), len(k.ID), MaxName)
	}
	return nil
}
