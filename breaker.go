package queue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// ErrBreakerOpen: the call was not made, because those before it failed.
var ErrBreakerOpen = errors.New("circuit breaker open")

// BreakerState is where a [Breaker] stands.
type BreakerState string

// The states.
const (
	BreakerClosed   BreakerState = "closed"    // calls pass
	BreakerOpen     BreakerState = "open"      // calls fail at once
	BreakerHalfOpen BreakerState = "half_open" // one call at a time passes, as a test
)

// BreakerOptions configure a [Breaker].
type BreakerOptions struct {
	Failures  int           // in a row, after which it opens; 0 means 5
	Open      time.Duration // how long it stays open; 0 means 30 s
	Successes int           // in a row when half-open, after which it closes; 0 means 3
	// OnChange is called after each change, never concurrently with itself for
	// one Breaker, and must not call it. Nil: not.
	OnChange func(BreakerState)
}

// Breaker keeps callers from a thing that fails: after Failures failures in a
// row it opens, after the time Open it lets one call through at a time, and
// after Successes of those it closes. It is safe for concurrent use and runs no
// goroutine.
type Breaker struct {
	o BreakerOptions

	mu        sync.Mutex // guards what follows, and orders OnChange
	state     BreakerState
	failures  int
	successes int
	testing   bool // half-open: a call is under way
	openUntil time.Time
}

// NewBreaker returns a closed Breaker. o may be nil.
func NewBreaker(o *BreakerOptions) (*Breaker, error) {
	b := &Breaker{state: BreakerClosed}
	if o != nil {
		b.o = *o
	}
	if b.o.Failures < 0 || b.o.Open < 0 || b.o.Successes < 0 {
		return nil, invalidOption("BreakerOptions: no value may be negative")
	}
	if b.o.Failures == 0 {
		b.o.Failures = 5
	}
	if b.o.Open == 0 {
		b.o.Open = 30 * time.Second
	}
	if b.o.Successes == 0 {
		b.o.Successes = 3
	}
	return b, nil
}

// State returns where the breaker stands now.
func (b *Breaker) State() BreakerState {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state == BreakerOpen && !time.Now().Before(b.openUntil) {
		return BreakerHalfOpen
	}
	return b.state
}

// Do calls f unless the breaker is open; then it returns an error that wraps
// ErrBreakerOpen. An error of f is a failure, but where ctx has ended: that says
// nothing of the thing called.
func (b *Breaker) Do(ctx context.Context, f func(context.Context) error) error {
	wait, ok := b.Allow()
	if !ok {
		return fmt.Errorf("%w: try again in %s", ErrBreakerOpen, wait.Round(time.Millisecond))
	}
	ended := false
	defer func() {
		if !ended { // f panicked
			b.Failure()
		}
	}()
	err := f(ctx)
	ended = true
	switch {
	case err == nil:
		b.Success()
	case ctx.Err() != nil:
		b.Withdraw()
	default:
		b.Failure()
	}
	return err
}

// Allow reports whether a call may be made now, and if not, after how long to ask
// again. Each true is followed by one Success, Failure or Withdraw.
func (b *Breaker) Allow() (wait time.Duration, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch b.state {
	case BreakerClosed:
		return 0, true
	case BreakerOpen:
		if d := time.Until(b.openUntil); d > 0 {
			return d, false
		}
		b.successes = 0
		b.change(BreakerHalfOpen)
	case BreakerHalfOpen:
		if b.testing {
			return b.o.Open / 10, false
		}
	}
	b.testing = true
	return 0, true
}

// Success notes a call that succeeded.
func (b *Breaker) Success() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failures, b.testing = 0, false
	if b.state != BreakerHalfOpen {
		return
	}
	if b.successes++; b.successes >= b.o.Successes {
		b.change(BreakerClosed)
	}
}

// Failure notes a call that failed.
func (b *Breaker) Failure() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.testing = false
	b.failures++
	if b.state == BreakerHalfOpen || b.state == BreakerClosed && b.failures >= b.o.Failures {
		b.openUntil = time.Now().Add(b.o.Open)
		b.change(BreakerOpen)
	}
}

// Withdraw notes a call that was not made, or whose outcome says nothing.
func (b *Breaker) Withdraw() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.testing = false
}

// change is called under mu.
func (b *Breaker) change(to BreakerState) {
	b.state = to
	if to == BreakerClosed {
		b.failures = 0
	}
	if b.o.OnChange != nil {
		b.o.OnChange(to)
	}
}
