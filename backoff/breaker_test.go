package backoff_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/backoff"
)

func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var states []backoff.State
		b, err := backoff.NewBreaker(&backoff.BreakerOptions{OnChange: func(s backoff.State) { states = append(states, s) }})
		if err != nil {
			t.Fatal(err)
		}
		down := errors.New("down")
		calls := 0
		do := func(err error) error {
			return b.Do(t.Context(), func(context.Context) error { calls++; return err })
		}
		for range 4 {
			_ = do(down)
		}
		_ = do(nil) // a success in between starts the count again
		for range 5 {
			if err := do(down); !errors.Is(err, down) {
				t.Fatal(err)
			}
		}
		if err := do(nil); !errors.Is(err, backoff.ErrOpen) || calls != 10 {
			t.Errorf("after 5 failures: %v, %d calls", err, calls)
		}
		<-time.After(29 * time.Second)
		if err := do(nil); !errors.Is(err, backoff.ErrOpen) {
			t.Errorf("after 29 s: %v", err)
		}
		<-time.After(time.Second)
		if s := b.State(); s != backoff.HalfOpen {
			t.Errorf("after 30 s: %s", s)
		}
		if err := do(down); !errors.Is(err, down) { // the test fails: open again
			t.Error(err)
		}
		if err := do(nil); !errors.Is(err, backoff.ErrOpen) {
			t.Error(err)
		}
		<-time.After(30 * time.Second)
		// One at a time while half-open.
		p, _, ok := b.Allow()
		if !ok || !p.Test() {
			t.Errorf("half open: allowed %t, test %t, want a test", ok, p.Test())
		}
		if _, _, ok := b.Allow(); ok {
			t.Error("half open lets two calls through at once")
		}
		p.Succeeded()
		p.Failed() // a permit ends once
		_ = do(nil)
		if s := b.State(); s != backoff.HalfOpen {
			t.Errorf("after two successes: %s", s)
		}
		_ = do(nil)
		if s := b.State(); s != backoff.Closed {
			t.Errorf("after three successes: %s", s)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for range 10 {
			_ = b.Do(ctx, func(ctx context.Context) error { return ctx.Err() })
		}
		if s := b.State(); s != backoff.Closed {
			t.Errorf("the caller's own end was counted as failures: %s", s)
		}
		want := []backoff.State{backoff.Open, backoff.HalfOpen, backoff.Open, backoff.HalfOpen, backoff.Closed}
		if !slices.Equal(states, want) {
			t.Errorf("changes %v, want %v", states, want)
		}
	})
}

func TestRetryPolicies(t *testing.T) {
	e := backoff.Exponential{First: time.Second, Max: time.Minute}
	var longest [10]time.Duration
	for range 2000 {
		for i := range longest {
			d := e.Delay(i + 1)
			if d < 0 {
				t.Fatalf("delay %s", d)
			}
			longest[i] = max(longest[i], d)
		}
	}
	for i, bound := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60, 60} {
		bound *= time.Second
		if longest[i] > bound || longest[i] < bound*9/10 {
			t.Errorf("the longest delay after %d was %s, want just below %s", i+1, longest[i], bound)
		}
	}
	if d := (backoff.Exponential{}).Delay(1 << 30); d > 5*time.Minute {
		t.Errorf("no bound: %s", d)
	}
	for range 100 { // the longest that there is
		if d := (backoff.Exponential{First: math.MaxInt64, Max: math.MaxInt64}).Delay(1); d < 0 {
			t.Errorf("delay %s", d)
		}
	}
	if backoff.Fixed(time.Second).Delay(9) != time.Second || (backoff.Never{}).Delay(1) >= 0 {
		t.Error("Fixed or Never: wrong delay")
	}
}

// TestBreakerLateCalls: a call that was allowed before the breaker opened says
// nothing about whether it may close.
func TestBreakerLateCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, err := backoff.NewBreaker(&backoff.BreakerOptions{Failures: 1, Successes: 1, Open: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		late, _, _ := b.Allow()
		failed, _, _ := b.Allow()
		failed.Failed()
		<-time.After(time.Second)
		test, _, ok := b.Allow()
		if !ok {
			t.Fatal("half open: no call is allowed, want one")
		}
		late.Succeeded()
		if s := b.State(); s != backoff.HalfOpen {
			t.Errorf("after a late success: %s, want %s", s, backoff.HalfOpen)
		}
		if _, _, ok := b.Allow(); ok {
			t.Error("a late call made room for a second test")
		}
		test.Succeeded()
		if s := b.State(); s != backoff.Closed {
			t.Errorf("after the test: %s, want %s", s, backoff.Closed)
		}
	})
}

func TestExceeds(t *testing.T) {
	for _, c := range []struct {
		name     string
		policy   backoff.Policy
		attempts int
		limit    time.Duration
		want     bool
	}{
		{"no second attempt", backoff.Never{}, 10, 0, false},
		{"one attempt", backoff.Fixed(time.Hour), 1, 0, false},
		{"just fits", backoff.Fixed(time.Second), 4, 3 * time.Second, false},
		{"just over", backoff.Fixed(time.Second), 5, 3 * time.Second, true},
		{"by the longest, not the drawn", backoff.Exponential{First: time.Minute, Max: time.Minute}, 3, 2*time.Minute - 1, true},
		{"a long row", backoff.Fixed(1), math.MaxInt, time.Hour, true},
		{"a long row of nothing", backoff.Fixed(0), math.MaxInt, 0, false},
		{"no overflow", backoff.Fixed(math.MaxInt64), 10, math.MaxInt64, true},
	} {
		if got := backoff.Exceeds(c.policy, c.attempts, c.limit); got != c.want {
			t.Errorf("%s: %t, want %t", c.name, got, c.want)
		}
	}
}

// The first open time is short, doubles with each test that fails, and is short again
// once the breaker has closed.
func TestBreakerFirstOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, err := backoff.NewBreaker(&backoff.BreakerOptions{Failures: 1, Successes: 1, Open: 5 * time.Second, FirstOpen: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		for round := range 2 {
			p, _, ok := b.Allow()
			for _, want := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 5 * time.Second, 5 * time.Second} {
				if !ok {
					t.Fatalf("round %d: no call is let through", round)
				}
				p.Failed()
				var wait time.Duration
				if _, wait, ok = b.Allow(); ok || wait != want {
					t.Errorf("round %d: open for %s, want %s", round, wait, want)
				}
				time.Sleep(wait)
				p, _, ok = b.Allow()
			}
			p.Succeeded()
		}
	})
}
