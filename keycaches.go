package queue

import (
	"context"
	"errors"
	"reflect"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/keys"
)

// keyCaches are the caches that a Client put in front of key providers: one for
// each provider, shared by all its senders and receivers, so that a provider has
// one list of valid key IDs and one flood limit in a Client.
type keyCaches struct {
	of  map[keys.Provider]*keys.Cached
	own []*keys.Cached // to close with the Client
}

// keysOf returns the keys of a queue, nil if it has none.
func (c *Client) keysOf(queue string) (*keys.Cached, error) {
	var p keys.Provider
	if c.options.KeysFor != nil {
		p = c.options.KeysFor(queue)
	}
	if p == nil {
		p = c.options.Keys
	}
	if p == nil {
		return nil, nil //nolint:nilnil // no keys is an answer
	}
	return c.cached(p)
}

// cached returns the cache in front of p, which is p if it is one already. That
// one is the application's to close.
func (c *Client) cached(p keys.Provider) (*keys.Cached, error) {
	if own, ok := p.(*keys.Cached); ok {
		return own, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed.Load() { // else Close may have looked already
		return nil, driver.ErrClosed
	}
	// Two values of a type that is not comparable cannot be recognised as one provider.
	canCompare := reflect.ValueOf(p).Comparable()
	if canCompare && c.caches.of[p] != nil {
		return c.caches.of[p], nil
	}
	cached, err := keys.NewCached(p, nil)
	if err != nil {
		return nil, err
	}
	c.caches.own = append(c.caches.own, cached)
	if canCompare {
		if c.caches.of == nil {
			c.caches.of = make(map[keys.Provider]*keys.Cached)
		}
		c.caches.of[p] = cached
	}
	return cached, nil
}

func (k keyCaches) close(ctx context.Context) error {
	var errs []error
	for _, c := range k.own {
		errs = append(errs, c.Close(ctx))
	}
	return errors.Join(errs...)
}
