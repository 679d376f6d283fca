package sbqueue

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// dialLimiter spaces out attempts that need a connection while the broker cannot be
// reached: one attempt at a time for all queues of a Broker, after waits that grow.
// Without a failure it delays nothing. It is safe for concurrent use.
type dialLimiter struct {
	mu       sync.Mutex // guards what follows
	failures int        // in a row
	next     time.Time  // when the next attempt may be made
	changed  chan struct{}
}

const (
	// firstDial is the wait after the first failure; each further one doubles it.
	firstDial = 250 * time.Millisecond
	// longestDial lets a broker that is back be found within seconds.
	longestDial = 5 * time.Second
)

// wait returns nil when an attempt may be made, or when limit is over: then with false.
// It fails when ctx or over ends.
func (l *dialLimiter) wait(ctx, over context.Context, limit time.Duration) (bool, error) {
	deadline := time.Now().Add(limit)
	for {
		d, changed := l.claim(time.Now())
		left := time.Until(deadline)
		switch {
		case d == 0:
			return true, nil
		case left <= 0:
			return false, nil
		}
		timer := time.NewTimer(min(d, left))
		select {
		case <-timer.C:
		case <-changed:
		case <-ctx.Done():
			timer.Stop()
			return false, ctx.Err()
		case <-over.Done():
			timer.Stop()
			return false, errClosed()
		}
		timer.Stop()
	}
}

// claim returns how long to wait; 0 means that the attempt is the caller's to make.
func (l *dialLimiter) claim(now time.Time) (time.Duration, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	if d := l.next.Sub(now); l.failures > 0 && d > 0 {
		return d, l.changed
	}
	l.next = now.Add(l.delay())
	return 0, l.changed
}

// delay is the wait after as many failures as there were, half of it at random.
func (l *dialLimiter) delay() time.Duration {
	if l.failures == 0 {
		return 0
	}
	d := min(firstDial<<min(l.failures-1, 10), longestDial)
	return d/2 + rand.N(d/2+1) //nolint:gosec // G404: jitter, not a secret
}

// failed notes that the broker was not reached.
func (l *dialLimiter) failed(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failures++
	l.next = now.Add(l.delay())
}

// reached notes that it was, and lets all that wait go on.
func (l *dialLimiter) reached() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failures == 0 {
		return
	}
	l.failures = 0
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}
