package sbqueue

import (
	"testing"
	"time"
)

// TestLeastWait: a session that answers quickly is asked briefly whether it has
// more, one that does not is given its time, and a queue always is.
func TestLeastWait(t *testing.T) {
	for _, c := range []struct {
		session bool
		answers []time.Duration
		want    time.Duration
	}{
		{false, nil, minWait},
		{false, []time.Duration{time.Millisecond}, minWait},
		{true, nil, minWait},
		{true, []time.Duration{time.Millisecond}, minSessionWait},
		{true, []time.Duration{40 * time.Millisecond}, 160 * time.Millisecond},
		{true, []time.Duration{40 * time.Millisecond, time.Millisecond, time.Hour}, 160 * time.Millisecond}, // later ones had to be sent first
		{true, []time.Duration{time.Hour}, minWait},
	} {
		s := new(source)
		if c.session {
			s.lose = func() {}
		}
		for _, d := range c.answers {
			s.answered(d)
		}
		if got := s.least(); got != c.want {
			t.Errorf("session %v that answered after %v: %v, want %v", c.session, c.answers, got, c.want)
		}
	}
}
