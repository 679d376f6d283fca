package sbqueue

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/dialing"
)

// linkTurn has f make a link of main when it is its turn, and when the process may connect
// to the namespace. Callers that wait meanwhile share the error of what failed.
func (b *Broker) linkTurn(ctx context.Context, further bool, f func() error) error {
	since := b.connects.Now()
	if err := b.turns.wait(ctx, further); err != nil {
		return err
	}
	defer b.turns.done()
	a, err := b.connects.BeginSince(ctx, since)
	if err != nil {
		return err
	}
	defer a.End()
	err = f()
	tell(a, err)
	return err
}

// acceptTurn is accept when the process may connect to the namespace. It waits for that at
// most until the deadline, and then fails with the error of an attempt that failed.
func (q *queue) acceptTurn(ctx context.Context, id string, deadline time.Time) (*azservicebus.SessionReceiver, context.Context, error) {
	limited, cancel := context.WithDeadlineCause(ctx, time.Now().Add(max(time.Until(deadline), minAccept)), errAway)
	defer cancel()
	stop := context.AfterFunc(q.source.over, cancel)
	defer stop()
	a, err := q.b.connects.Begin(limited)
	if err != nil {
		if errors.Is(context.Cause(limited), errAway) {
			err = errAway
		}
		return nil, nil, err
	}
	a.End() // accepting may take long: others may be made beside it
	r, connected, err := q.accept(ctx, id, max(time.Until(deadline), minAccept))
	tell(a, err)
	return r, connected, err
}

// errAway is of a wait for a connection that did not end in time.
var errAway error = driver.Errorf(driver.Unavailable, "the broker could not be reached a moment ago")

// tell says to an attempt what became of it: an answer is one also if it is an error.
func tell(a *dialing.Attempt, err error) {
	switch {
	case isAway(err):
		a.Failed(err)
	case errors.Is(err, context.Canceled), errors.Is(err, driver.ErrClosed): // the caller left
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, errNoAnswer), errors.Is(err, errSilent):
		// What is not answered takes its time by itself.
	default:
		a.Reached()
	}
}

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
