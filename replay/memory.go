package replay

import (
	"context"
	"time"
)

// MemoryOptions bounds a Memory. Nil is the zero value.
type MemoryOptions struct {
	// MaxEntries is how many envelopes are remembered at once; one more is
	// ErrFull. 0 means 1 Mi; negative is refused.
	MaxEntries int
}

// Memory is a NonceStore in memory.
type Memory struct{}

// NewMemory returns an empty store.
func NewMemory(*MemoryOptions) (*Memory, error) { return &Memory{}, nil }

// Begin implements NonceStore.
func (m *Memory) Begin(context.Context, Request) (Claim, error) { return Claim{}, ErrFull }

// Renew implements NonceStore.
func (m *Memory) Renew(context.Context, string, ID, string, time.Duration) error { return ErrClaimLost }

// Consume implements NonceStore.
func (m *Memory) Consume(context.Context, string, ID, string) error { return ErrClaimLost }

// Release implements NonceStore.
func (m *Memory) Release(context.Context, string, ID, string) error { return nil }

// Retention implements NonceStore: as long as the Request asks.
func (m *Memory) Retention() time.Duration { return 0 }
