package sqldriver

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
)

// Closer is an open queue or session.
type Closer interface {
	comparable
	Close(context.Context) error
}

// OpenSet is what closes with its owner: the queues of a broker, the sessions of a queue. The
// zero value is ready to use. It is safe for concurrent use.
type OpenSet[T Closer] struct {
	mu     sync.Mutex // guards what follows
	closed bool
	open   map[T]struct{}
}

// Add makes x close with the owner; false when that is closed.
func (s *OpenSet[T]) Add(x T) bool {
	return s.Do(func() {
		if s.open == nil {
			s.open = make(map[T]struct{})
		}
		s.open[x] = struct{}{}
	})
}

// Do calls f, which is quick, unless the owner is closed; it is not closed meanwhile.
func (s *OpenSet[T]) Do(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		f()
	}
	return !s.closed
}

// Remove is for what was closed by itself.
func (s *OpenSet[T]) Remove(x T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, x)
}

// All returns what is open.
func (s *OpenSet[T]) All() []T {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.open))
}

// Shut lets nothing be added any more; false when it was called before.
func (s *OpenSet[T]) Shut() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := !s.closed
	s.closed = true
	return first
}

// Close shuts s and closes what is open, side by side: each may wait for a server that does not
// answer.
func (s *OpenSet[T]) Close(ctx context.Context) error {
	s.Shut()
	all := s.All()
	errs := make([]error, len(all))
	var closing sync.WaitGroup
	for i, x := range all {
		closing.Go(func() { errs[i] = x.Close(ctx) })
	}
	closing.Wait()
	return errors.Join(errs...)
}
