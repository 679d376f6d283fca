// Package dialing bounds how often a process tries to connect to a server that does not
// answer: however many queues, stores and providers it has open there, they make a few
// attempts at once, and then one at a time, after pauses. A server that answers is connected
// to without a delay.
package dialing

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// abreast is how many attempts are under way at once, as long as none has failed, to a
	// server that has not answered one of them within recent. One that has may be asked for
	// hundreds of connections when a program starts.
	abreast = 4
	recent  = time.Second
	// firstPause is the pause after the first failure; each further one doubles it.
	firstPause = 250 * time.Millisecond
	// longestPause has a server that is back be found at once.
	longestPause = time.Second
)

// Limiter is the attempts of this process to connect to one server. The zero value is
// ready. It is safe for concurrent use.
type Limiter struct {
	mu       sync.Mutex // guards what follows
	failures int        // in a row
	reached  time.Time  // when the server last answered an attempt
	next     time.Time  // after a failure: when the next attempt may be made
	under    int        // attempts under way
	began    int        // attempts, ever
	failed   int        // the latest attempt that failed, by the count of began
	err      error      // of that
	changed  chan struct{}
}

var limiters sync.Map // *Limiter by server

// To returns the limiter of a server, such as host:port, which all that connect to it
// share.
func To(server string) *Limiter {
	l, _ := limiters.LoadOrStore(server, new(Limiter))
	return l.(*Limiter) //nolint:forcetypeassert,errcheck // what is stored
}

// Attempt is one attempt to connect. Each ends by exactly one call of End.
type Attempt struct {
	l      *Limiter
	number int
}

// Mark is a point in the course of the attempts.
type Mark struct{ began int }

// Now returns the mark of now.
func (l *Limiter) Now() Mark {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Mark{l.began}
}

// Begin returns when an attempt may be made. It fails with ctx, or with the error of an
// attempt that began after the call and failed: callers that wait share it.
func (l *Limiter) Begin(ctx context.Context) (*Attempt, error) { return l.BeginSince(ctx, l.Now()) }

// BeginSince is Begin for a caller that has waited for something else since then.
func (l *Limiter) BeginSince(ctx context.Context, since Mark) (*Attempt, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if l.failures > 0 && l.failed > since.began {
			return nil, l.err
		}
		d, ok := l.wait(time.Now())
		if ok {
			l.under++
			l.began++
			l.next = time.Now().Add(l.pause())
			return &Attempt{l, l.began}, nil
		}
		l.sleep(ctx, d)
	}
}

// wait returns how long nothing can be done but by a change, or that an attempt may be
// made. Called under mu.
func (l *Limiter) wait(now time.Time) (time.Duration, bool) {
	switch {
	case l.failures == 0:
		return time.Hour, l.under < abreast || now.Sub(l.reached) < recent
	case l.under > 0:
		return time.Hour, false
	}
	d := l.next.Sub(now)
	return d, d <= 0
}

// sleep gives mu up until there was a change, d is over or ctx ends. Called under mu.
func (l *Limiter) sleep(ctx context.Context, d time.Duration) {
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	changed := l.changed
	l.mu.Unlock()
	defer l.mu.Lock()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// pause is the pause after as many failures as there were, half of it at random.
func (l *Limiter) pause() time.Duration {
	if l.failures == 0 {
		return 0
	}
	d := min(firstPause<<min(l.failures-1, 8), longestPause)
	return d/2 + rand.N(d/2+1) //nolint:gosec // G404: jitter, not a secret
}

// wake has all that sleep look again. Called under mu.
func (l *Limiter) wake() {
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// End ends the attempt. What became of it is said by Reached or Failed, before or after.
func (a *Attempt) End() {
	a.l.mu.Lock()
	defer a.l.mu.Unlock()
	a.l.under--
	a.l.wake()
}

// Reached says that the server has answered.
func (a *Attempt) Reached() {
	a.l.mu.Lock()
	defer a.l.mu.Unlock()
	a.l.failures, a.l.reached = 0, time.Now()
	a.l.wake()
}

// Failed says that it did not.
func (a *Attempt) Failed(err error) {
	a.l.mu.Lock()
	defer a.l.mu.Unlock()
	a.l.failures++
	a.l.next = time.Now().Add(a.l.pause())
	a.l.failed, a.l.err = max(a.l.failed, a.number), err
	a.l.wake()
}
