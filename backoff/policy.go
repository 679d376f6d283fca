package backoff

import (
	"math"
	"math/rand/v2"
	"time"
)

// Policy says how long to wait after a failure. Policies are safe for concurrent
// use.
type Policy interface {
	// Delay returns the wait after the attempt with that number failed; 1 is the
	// first. Less than zero means that no attempt follows.
	Delay(attempt int) time.Duration
}

// Defaults of [Exponential].
const (
	DefaultFirst = time.Second
	DefaultMax   = 5 * time.Minute
)

// Exponential doubles the wait from First to Max, with full jitter: each delay is
// drawn between nothing and its bound, so that what failed together does not come
// back together.
type Exponential struct {
	First time.Duration // bound of the first delay; 0 or less means DefaultFirst
	Max   time.Duration // bound of every delay; 0 or less means DefaultMax
}

// Delay implements [Policy]. It is never less than zero.
func (e Exponential) Delay(attempt int) time.Duration {
	bound := e.Longest(attempt)
	if bound < math.MaxInt64 {
		bound++ // rand.N excludes its argument
	}
	return rand.N(bound) //nolint:gosec // G404: jitter, not a secret
}

// Longest is the bound of the delay after an attempt.
func (e Exponential) Longest(attempt int) time.Duration {
	first, limit := e.First, e.Max
	if first <= 0 {
		first = DefaultFirst
	}
	if limit <= 0 {
		limit = DefaultMax
	}
	if shift := max(attempt-1, 0); shift < 62 && first <= limit>>shift {
		return first << shift
	}
	return limit
}

// Fixed waits the same time after each failure. 0 or less means not at all.
type Fixed time.Duration

// Delay implements [Policy].
func (f Fixed) Delay(int) time.Duration { return max(time.Duration(f), 0) }

// Never allows no second attempt.
type Never struct{}

// Delay implements [Policy].
func (Never) Delay(int) time.Duration { return -1 }

// exactDelays is how many delays Exceeds asks a policy for. The rest of a longer row
// counts as long as the last of them: asking a million times would stall its caller.
const exactDelays = 10_000

// Exceeds reports whether the delays between that many attempts can add up to more
// than limit. A policy with a method Longest is judged by it, any other by Delay.
func Exceeds(p Policy, attempts int, limit time.Duration) bool {
	delay := p.Delay
	if b, ok := p.(interface{ Longest(int) time.Duration }); ok {
		delay = b.Longest
	}
	var sum time.Duration
	for i := 1; i < attempts; i++ {
		d := delay(i)
		if d < 0 {
			return false // no attempt follows
		}
		if d > limit-sum {
			return true
		}
		sum += d
		if i == exactDelays {
			return d > 0 && d > (limit-sum)/time.Duration(attempts-i)
		}
	}
	return false
}
