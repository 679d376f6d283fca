package worker

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/driver"
)

// TestDecide has every row of the table of decide.
func TestDecide(t *testing.T) {
	failed := errors.New("failed")
	wrapped := func(err error) error { return fmt.Errorf("order 7: %w", err) }
	lockLost := fmt.Errorf("renew: %w", queue.ErrLockLost)
	for _, c := range []struct {
		name   string
		result result
		retry  backoff.Policy // nil: ten seconds
		want   settlement
	}{
		{"handled", result{count: 1}, nil,
			settlement{disposition: driver.Completed}},
		{"handled at the last delivery", result{count: 4}, nil,
			settlement{disposition: driver.Completed}},
		{"handled although the lock is lost", result{cause: lockLost, count: 1}, nil,
			settlement{disposition: driver.Completed}},
		{"handled in a drain", result{cause: ErrDraining, count: 1}, nil,
			settlement{disposition: driver.Completed}},
		{"handled past its time", result{cause: ErrMaxProcessing, count: 1}, nil,
			settlement{disposition: driver.Completed}},
		{"a probe that succeeds", result{role: probe, count: 1}, nil,
			settlement{disposition: driver.Completed}},

		{"permanent", result{err: Permanent(failed, "bad_order"), count: 1}, nil,
			settlement{disposition: driver.DeadLettered, code: "bad_order"}},
		{"permanent, wrapped", result{err: wrapped(Permanent(failed, "bad_order")), count: 1}, nil,
			settlement{disposition: driver.DeadLettered, code: "bad_order"}},
		{"permanent in a drain", result{err: Permanent(failed, "bad_order"), cause: ErrDraining, count: 1}, nil,
			settlement{disposition: driver.DeadLettered, code: "bad_order"}},
		{"permanent of a probe", result{err: Permanent(failed, "bad_order"), role: probe, count: 1}, nil,
			settlement{disposition: driver.DeadLettered, code: "bad_order"}},

		{"the lock is lost", result{err: failed, cause: lockLost, count: 4}, nil,
			settlement{disposition: driver.Lost}},
		{"the session is lost", result{err: Later(nil, time.Minute), cause: queue.ErrSessionLost, count: 1}, nil,
			settlement{disposition: driver.Lost}},

		{"untried", result{err: backoff.ErrOpen, role: untried, wait: 20 * time.Second, count: 9}, nil,
			settlement{disposition: driver.Released, delay: 20 * time.Second}},
		{"untried, to be asked at once", result{err: backoff.ErrOpen, role: untried, count: 9}, nil,
			settlement{disposition: driver.Released, delay: time.Second}},
		{"untried, beyond the broker's delay", result{err: backoff.ErrOpen, role: untried, wait: 3 * time.Hour, count: 1}, nil,
			settlement{disposition: driver.Released, delay: time.Hour}},

		{"a drain", result{err: context.Canceled, cause: ErrDraining, count: 9}, nil,
			settlement{disposition: driver.Released}},
		{"a drain, by its cause", result{err: wrapped(ErrDraining), cause: ErrDraining, count: 9}, nil,
			settlement{disposition: driver.Released}},
		{"a failure in a drain", result{err: failed, cause: ErrDraining, count: 9}, nil,
			settlement{disposition: driver.Released, failure: failed}},
		{"RetryAfter in a drain", result{err: RetryAfter(failed, time.Minute), cause: ErrDraining, count: 9}, nil,
			settlement{disposition: driver.Released, delay: time.Minute}},

		{"Later", result{err: Later(failed, time.Minute), count: 1}, nil,
			settlement{disposition: driver.Released, delay: time.Minute}},
		{"Later, wrapped, past every limit", result{err: wrapped(Later(failed, 3*time.Hour)), count: 9}, backoff.Never{},
			settlement{disposition: driver.Released, delay: time.Hour}},

		{"a probe that fails", result{err: failed, role: probe, count: 9}, nil,
			settlement{disposition: driver.Released, delay: 10 * time.Second, failure: failed, counts: true}},
		{"a probe that fails, without retries", result{err: failed, role: probe, count: 9}, backoff.Never{},
			settlement{disposition: driver.Released, failure: failed, counts: true}},
		{"a probe that asks to wait", result{err: RetryAfter(failed, time.Minute), role: probe, count: 9}, nil,
			settlement{disposition: driver.Released, delay: time.Minute, counts: true}},
		{"a probe past its time", result{err: failed, cause: ErrMaxProcessing, role: probe, count: 1}, nil,
			settlement{disposition: driver.Abandoned, delay: 10 * time.Second, failure: failed, counts: true}},

		{"no deliveries left", result{err: failed, count: 4}, nil,
			settlement{disposition: driver.DeadLettered, code: "max_deliveries", failure: failed, counts: true}},
		{"no deliveries left for RetryAfter", result{err: RetryAfter(failed, 0), count: 4}, nil,
			settlement{disposition: driver.DeadLettered, code: "max_deliveries", counts: true}},
		{"no retries left", result{err: failed, count: 1}, backoff.Never{},
			settlement{disposition: driver.DeadLettered, code: "max_deliveries", failure: failed, counts: true}},

		{"RetryAfter", result{err: RetryAfter(failed, time.Minute), count: 3}, nil,
			settlement{disposition: driver.Abandoned, delay: time.Minute, counts: true}},
		{"RetryAfter of less than nothing", result{err: RetryAfter(failed, -time.Minute), count: 3}, nil,
			settlement{disposition: driver.Abandoned, counts: true}},
		{"a failure", result{err: failed, count: 3}, nil,
			settlement{disposition: driver.Abandoned, delay: 10 * time.Second, failure: failed, counts: true}},
		{"a failure past its time", result{err: context.Canceled, cause: ErrMaxProcessing, count: 3}, nil,
			settlement{disposition: driver.Abandoned, delay: 10 * time.Second, failure: context.Canceled, counts: true}},
		{"a failure, beyond the broker's delay", result{err: failed, count: 3}, backoff.Fixed(3 * time.Hour),
			settlement{disposition: driver.Abandoned, delay: time.Hour, failure: failed, counts: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := rules{retry: c.retry, maxDeliveries: 4, maxDelay: time.Hour}
			if p.retry == nil {
				p.retry = backoff.Fixed(10 * time.Second)
			}
			want := c.want
			if want.disposition == driver.DeadLettered && want.failure == nil || want.disposition == driver.Lost {
				want.failure = c.result.err // these are failures whatever they were meant to be
			}
			if got := decide(c.result, p); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
	free := decide(result{err: failed, count: 1}, rules{retry: backoff.Fixed(48 * time.Hour), maxDeliveries: 4})
	if free.delay != 48*time.Hour {
		t.Errorf("a broker without a limit: delay %s, want 48h", free.delay)
	}
}

// TestSpareDelays: what is given back unspent on a broker that counts it waits longer once
// half of its deliveries are gone. A failure, and a drain, do not.
func TestSpareDelays(t *testing.T) {
	failed := errors.New("failed")
	for name, c := range map[string]struct {
		result result
		spared bool
	}{
		"untried": {result{err: backoff.ErrOpen, role: untried, wait: time.Second}, true},
		"Later":   {result{err: Later(failed, time.Second)}, true},
		"a probe": {result{err: failed, role: probe}, true},
		"failure": {result{err: failed}, false},
		"drained": {result{err: context.Canceled, cause: ErrDraining}, false},
	} {
		for count, late := range map[int]bool{1: false, 5: false, 6: true, 9: true} {
			for _, limit := range []time.Duration{0, 10 * time.Minute} {
				r := c.result
				r.count = count
				want := time.Hour
				if limit > 0 {
					want = limit
				}
				got := decide(r, rules{retry: backoff.Fixed(time.Second), maxDeliveries: 10, spare: time.Hour, maxDelay: limit}).delay
				if spared := got == want; spared != (c.spared && late) || !spared && got > time.Second {
					t.Errorf("%s, delivery %d, longest delay %s: waits %s", name, count, limit, got)
				}
			}
		}
	}
}

// TestDefaultRetry: with four deliveries or more, a message outlives an outage of an
// hour however the delays are drawn.
func TestDefaultRetry(t *testing.T) {
	for _, deliveries := range []int{4, 5, 6, 8, 9, 10, 25, 1000} {
		p := newGrowing(deliveries)
		var least, longest time.Duration
		for i := 1; i < deliveries; i++ {
			bound := p.Longest(i)
			if i > 1 && bound < p.Longest(i-1) || bound > time.Hour {
				t.Fatalf("%d deliveries: the bound after %d is %s, after the one before %s", deliveries, i, bound, p.Longest(i-1))
			}
			least, longest = least+bound/2, longest+bound
		}
		if least < time.Hour {
			t.Errorf("%d deliveries may last %s, want an hour at least", deliveries, least)
		}
		t.Logf("%d deliveries: factor %d, %s to %s", deliveries, p.factor, least, longest)
	}
	p := newGrowing(10)
	shortest, longest := time.Duration(math.MaxInt64), time.Duration(0)
	for range 2000 {
		d := p.Delay(3)
		shortest, longest = min(shortest, d), max(longest, d)
	}
	if shortest < 8*time.Second || shortest > 9*time.Second || longest > 16*time.Second || longest < 15*time.Second {
		t.Errorf("the third delay was %s to %s, want 8 s to 16 s", shortest, longest)
	}
	if d := (growing{factor: 4, limit: 100 * time.Millisecond}).Longest(1); d != 100*time.Millisecond {
		t.Errorf("the first delay under a limit of 100 ms is %s", d)
	}
	if d := p.Longest(math.MaxInt); d != time.Hour {
		t.Errorf("the last delay is %s, want an hour", d)
	}
}

func TestPermanentCodes(t *testing.T) {
	for code, want := range map[string]string{
		"bad_order_7": "bad_order_7", "": "permanent", "Bad": "permanent", "a b": "permanent",
		string(make([]byte, 65)): "permanent",
	} {
		var p *permanentError
		if err := Permanent(nil, code); !errors.As(err, &p) || p.code != want {
			t.Errorf("Permanent(nil, %q) has code %q, want %q", code, p.code, want)
		}
	}
}

func TestPublic(t *testing.T) {
	if Public(nil) != nil {
		t.Error("Public(nil) is an error")
	}
	long := make([]byte, 0, 600)
	for len(long) < 598 {
		long = append(long, "ä"...)
	}
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"nothing marked":       {errors.New("secret"), ""},
		"the marked part only": {fmt.Errorf("secret: %w", Public(errors.New("no such customer"))), "no such customer"},
		"cut within a rune":    {Public(errors.New("x" + string(long))), "x" + string(long[:254])},
		"cut to valid UTF-8":   {Public(errors.New("ab\xff")), "ab"},
	} {
		if got := publicText(c.err); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	if !errors.Is(Public(errNotNow), errNotNow) {
		t.Error("Public hides its cause")
	}
}

func TestFailureLogForgets(t *testing.T) {
	l := newFailureLog()
	now := time.Unix(0, 0)
	for i := range 3 * maxFailing {
		l.noteFailure(fmt.Sprint("m", i), now)
	}
	if n := len(l.of); n > maxFailing || n < maxFailing/2 {
		t.Errorf("it remembers %d messages, the bound is %d", n, maxFailing)
	}
	last := fmt.Sprint("m", 3*maxFailing-1)
	for range 3 * maxFailures {
		l.noteFailure(last, now)
	}
	if n := len(l.times(last)); n != maxFailures {
		t.Errorf("it remembers %d times of a message, want %d", n, maxFailures)
	}
	l.forget(last)
	if n := len(l.times(last)); n != 0 {
		t.Errorf("it remembers %d times of a message that is gone", n)
	}
}
