package queue_test

import (
	"context"
	"errors"
	"sync"

	"github.com/queue-runtime/queue/replay"
)

// faultyStore is a replay store that fails while an error is set.
type faultyStore struct {
	replay.Store
	mu  sync.Mutex
	err error
}

func (s *faultyStore) set(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *faultyStore) fails() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *faultyStore) Begin(ctx context.Context, group string, r []replay.Request) ([]replay.Claim, error) {
	switch err := s.fails(); {
	case errors.Is(err, replay.ErrFull):
		claims := make([]replay.Claim, len(r))
		for i := range claims {
			claims[i].Err = err
		}
		return claims, nil
	case err != nil:
		return nil, err
	}
	return s.Store.Begin(ctx, group, r)
}

func (s *faultyStore) Renew(ctx context.Context, group string, l []replay.Lease) ([]replay.Renewed, error) {
	if err := s.fails(); err != nil {
		return nil, err
	}
	return s.Store.Renew(ctx, group, l)
}

func (s *faultyStore) Finish(ctx context.Context, group string, f []replay.Finish) ([]replay.Finished, error) {
	if err := s.fails(); err != nil {
		return nil, err
	}
	return s.Store.Finish(ctx, group, f)
}

func (s *faultyStore) Look(ctx context.Context, group string, q []replay.Query) ([]replay.Look, error) {
	if err := s.fails(); err != nil {
		return nil, err
	}
	return s.Store.Look(ctx, group, q)
}

func (s *faultyStore) Probe(ctx context.Context, group string) error {
	if err := s.fails(); err != nil {
		return err
	}
	return s.Store.Probe(ctx, group)
}
