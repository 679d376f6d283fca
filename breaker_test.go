package queue_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue"
)

func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var states []queue.BreakerState
		b, err := queue.NewBreaker(&queue.BreakerOptions{OnChange: func(s queue.BreakerState) { states = append(states, s) }})
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
		if err := do(nil); !errors.Is(err, queue.ErrBreakerOpen) || calls != 10 {
			t.Errorf("after 5 failures: %v, %d calls", err, calls)
		}
		<-time.After(29 * time.Second)
		if err := do(nil); !errors.Is(err, queue.ErrBreakerOpen) {
			t.Errorf("after 29 s: %v", err)
		}
		<-time.After(time.Second)
		if s := b.State(); s != queue.BreakerHalfOpen {
			t.Errorf("after 30 s: %s", s)
		}
		if err := do(down); !errors.Is(err, down) { // the test fails: open again
			t.Error(err)
		}
		if err := do(nil); !errors.Is(err, queue.ErrBreakerOpen) {
			t.Error(err)
		}
		<-time.After(30 * time.Second)
		// One at a time while half-open.
		if _, ok := b.Allow(); !ok {
			t.Error("half-open lets nobody through")
		}
		if _, ok := b.Allow(); ok {
			t.Error("half-open lets two through")
		}
		b.Success()
		_ = do(nil)
		if s := b.State(); s != queue.BreakerHalfOpen {
			t.Errorf("after two successes: %s", s)
		}
		_ = do(nil)
		if s := b.State(); s != queue.BreakerClosed {
			t.Errorf("after three successes: %s", s)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for range 10 {
			_ = b.Do(ctx, func(ctx context.Context) error { return ctx.Err() })
		}
		if s := b.State(); s != queue.BreakerClosed {
			t.Errorf("the caller's own end was counted as failures: %s", s)
		}
		want := []queue.BreakerState{queue.BreakerOpen, queue.BreakerHalfOpen, queue.BreakerOpen, queue.BreakerHalfOpen, queue.BreakerClosed}
		if !slices.Equal(states, want) {
			t.Errorf("changes %v, want %v", states, want)
		}
	})
}

func TestRetryPolicies(t *testing.T) {
	e := queue.Exponential{First: time.Second, Max: time.Minute}
	var most [10]time.Duration
	for range 2000 {
		for i := range most {
			d := e.Delay(i + 1)
			if d < 0 {
				t.Fatalf("delay %s", d)
			}
			most[i] = max(most[i], d)
		}
	}
	for i, bound := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60, 60} {
		bound *= time.Second
		if most[i] > bound || most[i] < bound*9/10 {
			t.Errorf("the longest delay after %d was %s, want just below %s", i+1, most[i], bound)
		}
	}
	if d := (queue.Exponential{}).Delay(1 << 30); d > 5*time.Minute {
		t.Errorf("no bound: %s", d)
	}
	for range 100 { // the longest that there is
		if d := (queue.Exponential{First: math.MaxInt64, Max: math.MaxInt64}).Delay(1); d < 0 {
			t.Errorf("delay %s", d)
		}
	}
	l := queue.Linear{Step: 2 * time.Second, Max: 5 * time.Second}
	if got := []time.Duration{l.Delay(1), l.Delay(2), l.Delay(3), l.Delay(1 << 62)}; !slices.Equal(got, []time.Duration{2e9, 4e9, 5e9, 5e9}) {
		t.Errorf("linear %v", got)
	}
	if queue.Fixed(time.Second).Delay(9) != time.Second || (queue.NoRetry{}).Delay(1) >= 0 {
		t.Error("fixed, none")
	}
}
