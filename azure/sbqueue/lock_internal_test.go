package sbqueue

import (
	"testing"
	"time"
)

// TestLockEnd: a known duration counts alone; an assumed one is cut to what the
// broker tells, and never below what Service Bus locks at least.
func TestLockEnd(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		what      string
		setting   time.Duration
		toldUntil time.Duration // after now; 0: none
		want      time.Duration
	}{
		{"known", 20 * time.Second, 20 * time.Second, 20 * time.Second},
		{"known, the broker's clock is behind by more than a lock", 20 * time.Second, -5 * time.Second, 20 * time.Second},
		{"known, the broker's clock is ahead", 20 * time.Second, time.Hour, 20 * time.Second},
		{"known, nothing told", 20 * time.Second, 0, 20 * time.Second},
		{"assumed, the queue's is shorter", 0, 30 * time.Second, 30 * time.Second},
		{"assumed, the queue's is longer", 0, 5 * time.Minute, DefaultLock},
		{"assumed, the broker's clock is behind by more than a lock", 0, -time.Hour, minLock},
		{"assumed, nothing told", 0, 0, DefaultLock},
	} {
		var toldUntil time.Time
		if c.toldUntil != 0 {
			toldUntil = now.Add(c.toldUntil).Round(0)
		}
		if got := newLockTime(c.setting).end(now, toldUntil).Sub(now).Round(time.Millisecond); got != c.want {
			t.Errorf("%s: the lock ends after %s, want %s", c.what, got, c.want)
		}
	}
}
