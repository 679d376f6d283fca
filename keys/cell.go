package keys

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// How long a cell waits before it asks a failing provider again: doubled from
// the one to the other.
const (
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
)

// cell is one answer of a provider that a Cached keeps, and how to get it. The
// mutex of the Cached guards its fields.
type cell[T any] struct {
	c        *Cached
	call     string
	id       ID
	fetch    func(context.Context) (T, error) // asks the provider; takes the mutex itself
	deadline func(at time.Time) time.Time     // until when an answer of that time is used
	dead     func(T) bool                     // the answer cannot be used any more; nil if it always can

	value  T
	has    bool
	at     time.Time  // when value was fetched
	err    error      // of the last fetch; nil if it was answered
	retry  time.Time  // until then the provider is not asked again
	fails  int        // in a row
	flight *flight[T] // under way; nil if none
}

// flight is one call of the provider, for everybody who waits for it.
type flight[T any] struct {
	done  chan struct{} // closed when value and err are set
	value T
	err   error
}

// get returns the answer, asking for it if the one at hand is past its time. An
// answer that is past it and given nevertheless comes with the reason in old.
func (l *cell[T]) get(ctx context.Context) (value T, old, err error) {
	l.c.mu.Lock()
	if l.c.closed {
		l.c.mu.Unlock()
		return value, nil, fmt.Errorf("keys: cached: %w: closed", ErrUnavailable)
	}
	now := time.Now()
	if l.has && l.dead != nil && l.dead(l.value) {
		var none T
		l.value, l.has = none, false
	}
	if l.has && now.Before(l.deadline(l.at)) {
		value = l.value
		l.c.mu.Unlock()
		l.tell(CacheHit, 0, nil)
		return value, nil, nil
	}
	if now.Before(l.retry) {
		return l.fallback(l.err)
	}
	f := l.launch() //nolint:contextcheck // the call is for others, too: it ends with the Cached
	if l.fails > 0 && l.stale(now) {
		// It failed before: nobody should wait for it to fail again.
		return l.fallback(l.err)
	}
	l.c.mu.Unlock()
	l.tell(CacheMiss, 0, nil)
	select {
	case <-f.done:
	case <-ctx.Done():
		return value, nil, ctx.Err()
	}
	if f.err == nil {
		return f.value, nil, nil
	}
	l.c.mu.Lock()
	return l.fallback(f.err)
}

// stale reports whether the answer at hand may be given while the provider
// fails.
func (l *cell[T]) stale(now time.Time) bool {
	return l.has && now.Before(l.deadline(l.at).Add(l.c.o.MaxStale))
}

// fallback answers without the provider, whose error is given: with what is at
// hand, else with that. It unlocks the mutex.
func (l *cell[T]) fallback(failure error) (value T, old, err error) {
	value = l.value
	ok := l.stale(time.Now())
	l.c.mu.Unlock()
	if !ok {
		var none T
		return none, nil, failure
	}
	l.tell(CacheStale, 0, failure)
	return value, failure, nil
}

// launch asks the provider, unless somebody does so already. The mutex is held,
// and the Cached is not closed.
func (l *cell[T]) launch() *flight[T] {
	if l.flight != nil {
		return l.flight
	}
	f := &flight[T]{done: make(chan struct{})}
	l.flight = f
	l.c.calls.Go(func() {
		defer close(f.done)
		ctx, cancel := context.WithTimeout(l.c.base, l.c.o.Timeout)
		defer cancel()
		start := time.Now()
		f.value, f.err = l.fetch(ctx)
		if f.err != nil {
			f.err = l.classify(ctx, f.err)
		}
		took := time.Since(start)
		l.c.mu.Lock()
		l.land(f)
		l.c.mu.Unlock()
		if f.err != nil {
			l.tell(CacheError, took, f.err)
			return
		}
		l.tell(CacheFetch, took, nil)
	})
	return f
}

// land takes over what a flight brought. The mutex is held.
func (l *cell[T]) land(f *flight[T]) {
	now := time.Now()
	l.flight, l.err = nil, f.err
	switch {
	case f.err == nil:
		l.value, l.has, l.at, l.retry, l.fails = f.value, true, now, time.Time{}, 0
	case errors.Is(f.err, ErrNotFound):
		// The provider is sure, so nothing older is worth anything.
		var none T
		l.value, l.has, l.retry, l.fails = none, false, now.Add(l.c.o.ListTTL), 0
	default:
		l.retry = now.Add(min(lastRetry, firstRetry<<min(l.fails, 8)))
		l.fails++
	}
}

// classify gives an error of the provider a sentinel if it has none. A context
// that ended was that of the call, not of whoever reads the error.
func (l *cell[T]) classify(ctx context.Context, err error) error {
	switch {
	case l.c.base.Err() != nil:
		return fmt.Errorf("keys: cached: %w: closed", ErrUnavailable)
	case ctx.Err() != nil:
		return fmt.Errorf("keys: cached: %w: %s: no answer within %v", ErrUnavailable, l.call, l.c.o.Timeout)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("keys: cached: %w: %s: %s", ErrUnavailable, l.call, err.Error())
	}
	for _, s := range []error{ErrNotFound, ErrUnavailable, ErrInvalidKey, ErrDestroyed, ErrExpired} {
		if errors.Is(err, s) {
			return fmt.Errorf("keys: cached: %w", err)
		}
	}
	return fmt.Errorf("keys: cached: %w: %s: %w", ErrUnavailable, l.call, err)
}

func (l *cell[T]) tell(kind CacheEventKind, took time.Duration, err error) {
	l.c.tell(CacheEvent{Kind: kind, Call: l.call, ID: l.id, Took: took, Err: err})
}
