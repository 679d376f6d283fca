package queue_test

import (
	"context"
	"sync"

	"github.com/queue-runtime/queue/keys"
)

// halfKeys is a provider of keys of which single questions fail.
type halfKeys struct {
	keys.Provider
	mu                 sync.Mutex
	key, current, list error
}

func (p *halfKeys) fails(err *error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return *err
}

func (p *halfKeys) GetKey(ctx context.Context, id keys.ID) (*keys.Key, error) {
	if err := p.fails(&p.key); err != nil {
		return nil, err
	}
	return p.Provider.GetKey(ctx, id)
}

func (p *halfKeys) CurrentKeyID(ctx context.Context) (keys.ID, error) {
	if err := p.fails(&p.current); err != nil {
		return "", err
	}
	return p.Provider.CurrentKeyID(ctx)
}

func (p *halfKeys) ValidKeyIDs(ctx context.Context) ([]keys.ID, error) {
	if err := p.fails(&p.list); err != nil {
		return nil, err
	}
	return p.Provider.ValidKeyIDs(ctx)
}
