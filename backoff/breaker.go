package backoff

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// ErrOpen reports that the call was not made because earlier calls failed.
var ErrOpen = errors.New("circuit breaker open")

// State is the state of a [Breaker].
type State string

// The states.
const (
	Closed   State = "closed"    // calls pass
	Open     State = "open"      // no call passes
	HalfOpen State = "half_open" // one call at a time passes, as a test
)

// BreakerOptions configure a [Breaker]. The zero value has all defaults.
type BreakerOptions struct {
	Failures int           // in a row, after which it opens; 0 means 5
	Open     time.Duration // how long it stays open; 0 means 30 s
	// FirstOpen is how long it stays open at first. Each test that fails doubles that, up
	// to Open, so that a short outage costs seconds. 0 means Open.
	FirstOpen time.Duration
	Successes int // in a row while half open, after which it closes; 0 means 3

	// OnChange is called after each change. Calls for one Breaker do not overlap,
	// and must not call it. Nil means no callback.
	OnChange func(State)
}

// Breaker keeps callers from a service that fails: after Failures failures in a row
// it opens, after the time Open it lets one call through at a time, and after
// Successes of those it closes. It is safe for concurrent use.
type Breaker struct {
	o BreakerOptions

	mu    sync.Mutex // guards the fields below; held while OnChange runs, to order it
	state State
	// period counts the changes of state. What a call brings is counted only in
	// the period in which it was allowed.
	period    uint64
	failures  int           // in a row, while closed
	successes int           // in a row, while half open
	testing   bool          // half open: a call is under way
	openUntil time.Time     // while open
	openFor   time.Duration // the next time that it opens
}

// NewBreaker returns a closed Breaker. o may be nil. It fails if a value is
// negative.
func NewBreaker(o *BreakerOptions) (*Breaker, error) {
	b := &Breaker{state: Closed}
	if o != nil {
		b.o = *o
	}
	if b.o.Failures < 0 || b.o.Open < 0 || b.o.FirstOpen < 0 || b.o.Successes < 0 {
		return nil, errors.New("BreakerOptions: Failures, Open, FirstOpen and Successes must not be negative")
	}
	if b.o.Failures == 0 {
		b.o.Failures = 5
	}
	if b.o.Open == 0 {
		b.o.Open = 30 * time.Second
	}
	if b.o.FirstOpen == 0 {
		b.o.FirstOpen = b.o.Open
	}
	b.openFor = min(b.o.FirstOpen, b.o.Open)
	if b.o.Successes == 0 {
		b.o.Successes = 3
	}
	return b, nil
}

// State returns the state now.
func (b *Breaker) State() State {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state == Open && !time.Now().Before(b.openUntil) {
		return HalfOpen
	}
	return b.state
}

// Permit allows one call. Exactly one of its methods is called once, when the call
// has ended; calls after the first, and those of the zero Permit, do nothing.
type Permit struct {
	b      *Breaker
	period uint64
	test   bool
}

// Test reports whether the call is the one that a half-open Breaker lets through.
func (p *Permit) Test() bool { return p.test }

// Succeeded notes that the call succeeded.
func (p *Permit) Succeeded() { p.end((*Breaker).succeeded) }

// Failed notes that the call failed.
func (p *Permit) Failed() { p.end((*Breaker).failed) }

// Unused notes that the call was not made, or that its end says nothing about the
// service.
func (p *Permit) Unused() { p.end(func(*Breaker) {}) }

// end counts the call if the breaker is still in the period that allowed it: a call
// from before the breaker opened is no test of whether it may close.
func (p *Permit) end(count func(*Breaker)) {
	b := p.b
	if b == nil {
		return
	}
	p.b = nil
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.period != p.period {
		return
	}
	if p.test {
		b.testing = false
	}
	count(b)
}

// Allow returns a Permit for one call if one may be made now. If not, ok is false,
// and wait is how long to wait before asking again.
func (b *Breaker) Allow() (p Permit, wait time.Duration, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch b.state {
	case Closed:
		return Permit{b: b, period: b.period}, 0, true
	case Open:
		if d := time.Until(b.openUntil); d > 0 {
			return Permit{}, d, false
		}
		b.change(HalfOpen)
	case HalfOpen:
		if b.testing {
			// The test takes its time; a tenth of the first open time asks a few times.
			return Permit{}, min(b.o.FirstOpen, b.o.Open) / 10, false
		}
	}
	b.testing = true
	return Permit{b: b, period: b.period, test: true}, 0, true
}

// Do calls f unless the breaker is open; then its error wraps [ErrOpen]. An error
// from f counts as a failure unless ctx is done, which says nothing about the
// service. A panic of f counts as a failure and passes through.
func (b *Breaker) Do(ctx context.Context, f func(context.Context) error) error {
	p, wait, ok := b.Allow()
	if !ok {
		return fmt.Errorf("%w: try again in %s", ErrOpen, wait.Round(time.Millisecond))
	}
	defer p.Failed() // if f panicked; without effect otherwise
	err := f(ctx)
	switch {
	case err == nil:
		p.Succeeded()
	case ctx.Err() != nil:
		p.Unused()
	default:
		p.Failed()
	}
	return err
}

// succeeded is called under mu.
func (b *Breaker) succeeded() {
	b.failures = 0
	if b.state != HalfOpen {
		return
	}
	if b.successes++; b.successes >= b.o.Successes {
		b.openFor = min(b.o.FirstOpen, b.o.Open)
		b.change(Closed)
	}
}

// failed is called under mu.
func (b *Breaker) failed() {
	b.failures++
	if b.state == HalfOpen || b.state == Closed && b.failures >= b.o.Failures {
		b.openUntil = time.Now().Add(b.openFor)
		b.openFor = min(2*b.openFor, b.o.Open)
		b.change(Open)
	}
}

// change begins a period in another state. It is called under mu.
func (b *Breaker) change(to State) {
	b.state = to
	b.period++
	b.failures, b.successes, b.testing = 0, 0, false
	if b.o.OnChange != nil {
		b.o.OnChange(to)
	}
}
