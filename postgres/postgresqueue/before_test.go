package postgresqueue

import (
	"testing"
	"time"
)

// TestBefore: the same age is told by whatever clock asks.
func TestBefore(t *testing.T) {
	for _, now := range []time.Time{time.Unix(0, 0), time.Unix(4e9, 0)} {
		if got := now.Sub(before(now, 90.5)); got != 90*time.Second+500*time.Millisecond {
			t.Errorf("at %s: %s", now, got)
		}
	}
}
