package intake

import (
	"fmt"
	"testing"
	"time"
)

const horizon = 15 * time.Minute

// TestOneWaitPerSession: the wait counts from when the broker took the first message that
// blocked. Those after it get what is left of it, and none until four horizons are over.
func TestOneWaitPerSession(t *testing.T) {
	begin := time.UnixMilli(1_800_000_000_000)
	at := func(minutes int) time.Time { return begin.Add(time.Duration(minutes) * time.Minute) }
	var w SessionWaits
	for _, c := range []struct {
		session       string
		enqueued, now int // minutes
		want          time.Duration
	}{
		{"s", 0, 5, 10 * time.Minute}, // behind a backlog of five minutes
		{"s", 5, 10, 5 * time.Minute},
		{"other", 9, 10, 14 * time.Minute},
		{"s", 14, 15, 0},
		{"s", 30, 30, 0},
		{"s", 59, 59, 0},
		{"s", 60, 60, horizon},        // the next wait
		{"old", 0, 100, 0},            // its key should have come long ago
		{"future", 500, 100, horizon}, // by the word of a broker that lies
		{"future", 500, 108, horizon - 8*time.Minute},
	} {
		if got := w.Block(c.session, at(c.enqueued), at(c.now), horizon); got != c.want {
			t.Errorf("%s, enqueued at %d, now %d: %s, want %s", c.session, c.enqueued, c.now, got, c.want)
		}
	}
	if got := w.Block("unknown time", time.Time{}, begin, horizon); got != horizon {
		t.Errorf("a broker that does not tell when: %s, want %s", got, horizon)
	}
}

// TestSessionWaitsAreBounded: sessions that forgeries name fill no memory, and the newest
// are remembered.
func TestSessionWaitsAreBounded(t *testing.T) {
	begin := time.UnixMilli(1_800_000_000_000)
	var w SessionWaits
	for i := range 2 * maxWaits {
		now := begin.Add(time.Duration(i) * time.Millisecond)
		w.Block(fmt.Sprint(i), now, now, horizon)
	}
	if n := len(w.newer) + len(w.older); n > maxWaits {
		t.Errorf("%d sessions are remembered, want at most %d", n, maxWaits)
	}
	last := 2*maxWaits - 1
	if got := w.Block(fmt.Sprint(last), time.Time{}, begin.Add(horizon), horizon); got >= horizon {
		t.Errorf("the newest session waits for %s anew, want the rest of its wait", got)
	}
}

// TestSessionThatWaitsAgainForgetsNoOther: a session that is remembered takes no room when
// it waits once more.
func TestSessionThatWaitsAgainForgetsNoOther(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_000)
	var w SessionWaits
	for i := range maxWaits - 1 {
		w.Block(fmt.Sprint(i), now, now, horizon)
	}
	for range 2 { // its wait began so long ago that each message begins another
		w.Block("again", now.Add(-2*waitMemory*horizon), now, horizon)
	}
	later := now.Add(horizon)
	if got := w.Block("0", later, later, horizon); got != 0 {
		t.Errorf("the first session waits for %s anew, want no wait: it had its own", got)
	}
}

// TestSessionWaitsOfTheOlderHalf: a wait is remembered while fewer than maxWaits/2 others
// begin after it.
func TestSessionWaitsOfTheOlderHalf(t *testing.T) {
	begin := time.UnixMilli(1_800_000_000_000)
	var w SessionWaits
	block := func(session string, now time.Time) time.Duration { return w.Block(session, now, now, horizon) }
	for i := range maxWaits / 2 {
		block(fmt.Sprint(i), begin)
	}
	if n := len(w.older); n != 0 {
		t.Errorf("%d sessions are in the older half before the newer is full", n)
	}
	block("one more", begin)
	if n := len(w.newer); n != 1 {
		t.Errorf("%d sessions are in the newer half, want the one that found it full", n)
	}
	for i := range maxWaits / 2 {
		if got := block(fmt.Sprint(i), begin.Add(time.Minute)); got != horizon-time.Minute {
			t.Fatalf("session %d waits for %s, want the rest of its wait", i, got)
		}
	}
}
