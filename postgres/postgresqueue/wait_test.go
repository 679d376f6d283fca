package postgresqueue

import (
	"testing"
	"time"
)

// TestPause: a call that waits sleeps until something is due, and does not spin if what
// is due cannot be had.
func TestPause(t *testing.T) {
	const poll = 2 * time.Second
	in := func(d time.Duration) *time.Duration { return &d }
	for _, c := range []struct {
		what    string
		poll    time.Duration
		due     *time.Duration
		overdue int
		want    time.Duration
	}{
		{"nothing is due ever", poll, nil, 0, poll},
		{"due later than the next poll", poll, in(time.Hour), 0, poll},
		{"due before the next poll", poll, in(time.Second), 0, time.Second},
		{"due in a moment", poll, in(time.Microsecond), 0, overduePause},
		{"came due just now", poll, in(0), 1, overduePause},
		{"due and not to be had again", poll, in(0), 2, 2 * overduePause},
		{"due and not to be had for long", poll, in(0), 100, blockedPause},
		{"a poll that is shorter", MinPoll, in(0), 100, MinPoll},
	} {
		if got := pauseFor(c.poll, c.due, c.overdue); got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
}
