package queue

import (
	"math"
	"math/rand/v2"
	"time"
)

// RetryPolicy says how long a message waits after a failed delivery. Policies
// are safe for concurrent use.
type RetryPolicy interface {
	// Delay returns the wait after delivery count (1 is the first) failed.
	// Negative means: no further try, dead-letter now.
	Delay(count int) time.Duration
}

// Exponential doubles from First on, with full jitter: each delay is drawn from
// nothing to its bound, so that messages that failed together do not come back
// together.
type Exponential struct {
	First time.Duration // bound of the first delay; 0 means 1 s
	Max   time.Duration // 0 means 5 minutes
}

// Delay implements RetryPolicy.
func (e Exponential) Delay(count int) time.Duration {
	bound := e.bound(count)
	if bound < math.MaxInt64 {
		bound++ // itself included
	}
	return rand.N(bound) //nolint:gosec // G404: jitter, not a secret
}

// bound is the longest delay after delivery count.
func (e Exponential) bound(count int) time.Duration {
	first, most := e.First, e.Max
	if first <= 0 {
		first = time.Second
	}
	if most <= 0 {
		most = 5 * time.Minute
	}
	if shift := max(count-1, 0); shift < 62 && first <= most>>shift {
		return first << shift
	}
	return most
}

// Linear waits Step after the first failure, twice Step after the second, and so
// on up to Max.
type Linear struct {
	Step time.Duration // 0 means 1 s
	Max  time.Duration // 0 means 5 minutes
}

// Delay implements RetryPolicy.
func (l Linear) Delay(count int) time.Duration {
	step, most := l.Step, l.Max
	if step <= 0 {
		step = time.Second
	}
	if most <= 0 {
		most = 5 * time.Minute
	}
	if n := time.Duration(max(count, 1)); n <= most/step {
		return n * step
	}
	return most
}

// Fixed waits the same time after each failure; 0 means not at all.
type Fixed time.Duration

// Delay implements RetryPolicy.
func (f Fixed) Delay(int) time.Duration { return max(time.Duration(f), 0) }

// NoRetry dead-letters at the first failure.
type NoRetry struct{}

// Delay implements RetryPolicy.
func (NoRetry) Delay(int) time.Duration { return -1 }
