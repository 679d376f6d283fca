package intake

import (
	"fmt"
	"testing"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// lock stands for the time until a claim of another receiver ends.
const lock = 30 * time.Second

// TestDecide has every row of DESIGN.md, "What becomes of a message", for a broker
// with delays, one with a short longest delay, and one without any.
func TestDecide(t *testing.T) {
	rejected := func(reason string, wait time.Duration) Verdict {
		return Verdict{Finding: Rejected, Reason: reason, Count: 1, Wait: wait}
	}
	last := func(reason string) Verdict {
		return Verdict{Finding: Rejected, Reason: reason, Count: 3}
	}
	dead := Action{Disposition: driver.DeadLettered, Kind: driver.MoveToDeadLetter}
	abandon := func(d time.Duration) Action {
		return Action{Disposition: driver.Abandoned, Kind: driver.Abandon, Delay: d}
	}
	release := func(d time.Duration) Action {
		return Action{Disposition: driver.Released, Kind: driver.Release, Delay: d}
	}
	third := 15 * time.Minute / 3 // of three deliveries: waits of one and two thirds
	final := func(v Verdict) Verdict {
		v.Final = true
		return v
	}
	for _, c := range []struct {
		name string
		v    Verdict
		want Action
	}{
		{"not looked at", Verdict{}, Action{Disposition: driver.Released, Kind: driver.Release}},
		{"good", Verdict{Finding: Good}, Action{}},
		{"handled before", Verdict{Finding: Duplicate}, Action{Disposition: driver.Completed, Kind: driver.Complete}},
		{"unseen", Verdict{Finding: Unseen}, release(0)},
		{"plaintext", rejected(driver.ReasonPlaintext, 0), dead},
		{"malformed", rejected(driver.ReasonInvalidEnvelope, 0), dead},
		{"unknown version, first delivery", rejected(driver.ReasonUnsupportedVersion, 0), abandon(third)},
		{"unknown version that was not announced", final(rejected(driver.ReasonUnsupportedVersion, 0)), dead},
		{"unknown version, last delivery", last(driver.ReasonUnsupportedVersion), dead},
		{"unknown key, first delivery", rejected(driver.ReasonKeyNotFound, 0), abandon(third)},
		{"unknown key, second delivery", Verdict{Finding: Rejected, Reason: driver.ReasonKeyNotFound, Count: 2}, abandon(2 * third)},
		{"unknown key, its session waits no longer than that", rejected(driver.ReasonKeyNotFound, time.Minute), abandon(time.Minute)},
		{"unknown key, its session has waited", final(rejected(driver.ReasonKeyNotFound, 0)), dead},
		{"unknown key, last delivery", last(driver.ReasonKeyNotFound), dead},
		{"key provider away", rejected(driver.ReasonKeyProvider, 4*time.Second), release(4 * time.Second)},
		{"no reason known", rejected("", time.Second), release(time.Second)},
		{"key provider away, last delivery", last(driver.ReasonKeyProvider), release(0)},
		{"forged", final(rejected(driver.ReasonAuthentication, 0)), dead},
		{"does not open, under a key that has opened none", rejected(driver.ReasonAuthentication, 2*time.Second), release(2 * time.Second)},
		{"the same, last delivery", last(driver.ReasonAuthentication), release(0)},
		{"too old", rejected(driver.ReasonMessageExpired, 0), dead},
		{"not due", rejected(driver.ReasonMessageFromFuture, time.Minute), release(time.Minute)},
		{"not due by less than a timer", rejected(driver.ReasonMessageFromFuture, -1), release(minWait)},
		{"replayed", rejected(driver.ReasonNonceReused, 0), dead},
		{"claimed by another", rejected(driver.ReasonNonceBusy, lock), abandon(lock)},
		{"delivered too often", rejected(driver.ReasonMaxDeliveries, 0), dead},
		{"replay store away", rejected(driver.ReasonReplayStore, 8*time.Second), release(8 * time.Second)},
	} {
		policy := Policy{MaxDeliveries: 3, RotationHorizon: 15 * time.Minute, Delays: true}
		check(t, c.name, c.v, policy, c.want)

		policy.MaxDelay = 10 * time.Second
		short := c.want
		short.Delay = min(short.Delay, policy.MaxDelay)
		check(t, c.name+", short delays", c.v, policy, short)

		policy.Delays, policy.MaxDelay = false, 0
		none := c.want
		if none.Delay > 0 {
			none.Kind = 0 // its lock runs out
		}
		check(t, c.name+", no delays", c.v, policy, none)

		policy.InOrder = true
		none.Blocks = c.v.Finding == Rejected && c.want != dead
		check(t, c.name+", in order", c.v, policy, none)
	}
}

func check(t *testing.T, name string, v Verdict, p Policy, want Action) {
	t.Helper()
	if got := Decide(v, p); got != want {
		t.Errorf("%s: %+v, want %+v", name, got, want)
	}
}

// TestDecideUnknownReason: what no row names is dead-lettered, and never deleted.
func TestDecideUnknownReason(t *testing.T) {
	got := Decide(Verdict{Finding: Rejected, Reason: "new"}, Policy{MaxDeliveries: 1})
	if got.Kind != driver.MoveToDeadLetter {
		t.Errorf("settled by %s, want %s", got.Kind, driver.MoveToDeadLetter)
	}
}

// TestSpread: the delays of all deliveries add up to the horizon, never shrink, and
// are never below what a broker's timer can do.
func TestSpread(t *testing.T) {
	for _, limit := range []int{1, 2, 3, 10, 21, 22, 50, 1000} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			const horizon = 15 * time.Minute
			var sum, last time.Duration
			for count := 1; count < max(limit, 2); count++ {
				d := spread(count, limit, horizon)
				if d < minSpread || d < last && last != time.Second {
					t.Errorf("delay %d is %s after %s", count, d, last)
				}
				sum, last = sum+d, d
			}
			if slack := sum - horizon; slack < -time.Second || slack > time.Duration(limit)*time.Second {
				t.Errorf("%d deliveries are spread over %s, want %s", limit, sum, horizon)
			}
		})
	}
	if d := spread(1, 2, time.Millisecond); d != minSpread {
		t.Errorf("over less than a broker's timer tells: %s, want %s", d, minSpread)
	}
	if a, b := spread(0, 5, time.Hour), spread(1, 5, time.Hour); a != b {
		t.Errorf("count 0: %s, want as count 1: %s", a, b)
	}
	if a, b := spread(9, 5, time.Hour), spread(4, 5, time.Hour); a != b {
		t.Errorf("count beyond the limit: %s, want as the last: %s", a, b)
	}
}
