package sbqueue

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// This file bounds calls of the SDK. The SDK waits for its mutexes whatever a context
// says, and another call may hold them while it dials. So a call runs on a goroutine of
// its own, its caller stops waiting in time, and Close waits for what is left.

// outcome is what became of one call.
type outcome struct {
	err     error
	pending bool // it has not ended; err says why it is no longer waited for
}

// each calls f for 0 to n-1, at most width of them at once, and returns what became of
// each. It waits until ctx ends, and callLimit and callGrace at most. f has to bound
// itself.
func (b *Broker) each(ctx context.Context, n, width int, f func(int) error) []outcome {
	out := make([]outcome, n)
	if err := ctx.Err(); err != nil {
		return all(out, err)
	}
	width = min(width, n)
	if !b.begin(width) {
		return all(out, errClosed())
	}
	limit := b.limit.context(context.Background(), callLimit)
	type ended struct {
		i   int
		err error
	}
	done := make(chan ended, n) // with room for calls that are not waited for
	for first := range width {
		go func() {
			defer b.calls.Done()
			for i := first; i < n && limit.Err() == nil; i += width {
				done <- ended{i, f(i)}
			}
		}()
	}
	for i := range out {
		out[i] = outcome{context.DeadlineExceeded, true}
	}
	cancelled, over := ctx.Done(), limit.Done()
	var late <-chan time.Time
	left := n
	for waiting := true; waiting && left > 0; {
		select {
		case e := <-done:
			out[e.i] = outcome{err: e.err}
			left--
		case <-cancelled:
			cancelled, over, late = nil, nil, time.After(callGrace/10)
		case <-over:
			cancelled, over, late = nil, nil, time.After(callGrace)
		case <-late:
			waiting = false
		}
	}
	for i := range out {
		out[i].err = givenUp(ctx, out[i].err)
	}
	return out
}

// all sets the error of all outcomes.
func all(out []outcome, err error) []outcome {
	for i := range out {
		out[i].err = err
	}
	return out
}

// one is each for a single call.
func (b *Broker) one(ctx context.Context, f func() error) error {
	return b.each(ctx, 1, 1, func(int) error { return f() })[0].err
}

// givenUp says of a call that was given up whether ctx or the broker was at fault.
func givenUp(ctx context.Context, err error) error {
	if err == nil || !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errSilent
}

// bounded makes a call that ends within limit. The SDK waits for its mutexes whatever a
// context says, and a call over a network that has fallen silent for as long as the
// connection counts as alive: one that has not ended in time is left to itself, the
// broker counts as not answering, and Close waits for it.
func (b *Broker) bounded(ctx context.Context, limit time.Duration, call func(context.Context) error) error {
	if !b.begin(1) {
		return errClosed()
	}
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		defer b.calls.Done()
		done <- call(bounded)
	}()
	select {
	case err := <-done:
		if err != nil && bounded.Err() != nil && ctx.Err() == nil {
			return errSilent
		}
		return err
	case <-bounded.Done():
	}
	grace := time.NewTimer(callGrace / 10)
	defer grace.Stop()
	select {
	case err := <-done:
		if err == nil || ctx.Err() != nil {
			return err
		}
	case <-grace.C:
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return errSilent
}

// errSilent ends a call that took too long. Another one at once has a better chance only if
// the connection was replaced meanwhile: see connection.
var errSilent = &driver.Error{Kind: driver.Unavailable, Err: errors.New("the broker does not answer")}

// rolling gives contexts of the same length, each to all calls within the time of a
// step.
type rolling struct {
	mu   sync.Mutex // guards what follows
	now  context.Context
	next time.Time
}

// rollingStep is by how much a rolling context may be longer than asked for.
const rollingStep = 500 * time.Millisecond

// context returns one that ends d from now, or a step later, and with parent,
// which is always the same.
func (r *rolling) context(parent context.Context, d time.Duration) context.Context {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.After(r.next) {
		// Calls that have the previous context keep it; it ends by itself.
		ctx, cancel := context.WithTimeout(parent, d+rollingStep)
		context.AfterFunc(ctx, cancel)
		r.now, r.next = ctx, now.Add(rollingStep)
	}
	return r.now
}

// pauses are between the attempts of a call that met a dead link: few and quick,
// because package queue has a policy of its own. The SDK's retries are not used.
// They attach a session anew, unseen; calls that retry side by side leak the links
// that they make; and settling has others, which cannot be changed.
var pauses = [...]time.Duration{20 * time.Millisecond, 100 * time.Millisecond, 300 * time.Millisecond, 900 * time.Millisecond}

// persist calls f, and again while its error is that the link or the connection
// was lost: f makes them anew.
func persist(ctx, over context.Context, f func() error) error {
	for n := 0; ; n++ {
		err := f()
		if err == nil || n == len(pauses) || !isLost(err) {
			return err
		}
		if !sleep(ctx, over, pauses[n]) {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return err
		}
	}
}

// sleep waits for d, and reports whether neither context ended.
func sleep(ctx, over context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
	case <-over.Done():
	}
	return false
}

// begin lets n more goroutines run that Close waits for; false once it does.
func (b *Broker) begin(n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		return false
	}
	b.calls.Add(n)
	return true
}

// discard closes what the SDK made and is of no more use, in the background: it tells the
// broker, which may not answer, and waits until life ends at most, which is its connection's.
// The SDK holds a mutex meanwhile for which other calls wait.
func (b *Broker) discard(life context.Context, r closer) {
	if !b.begin(1) {
		return // Close ends it with the connection
	}
	go func() {
		defer b.calls.Done()
		ctx, cancel := context.WithTimeout(life, closeLink)
		defer cancel()
		_ = r.Close(ctx) // it was dead
	}()
}

// closeAll closes them side by side, and waits no longer than limit. A context
// that has ended before does not keep them open.
func (b *Broker) closeAll(ctx context.Context, all []closer, limit time.Duration) error {
	if len(all) == 0 {
		return nil
	}
	if ctx.Err() != nil {
		ctx = context.WithoutCancel(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	done := make(chan error, len(all))
	for _, c := range all {
		go func() { done <- c.Close(ctx) }()
	}
	var errs []error
	for range all {
		select {
		case err := <-done:
			errs = append(errs, err)
		case <-ctx.Done():
			return errors.Join(append(errs, driver.Errorf(driver.Unavailable, "not closed within %s", limit))...)
		}
	}
	return errors.Join(errs...)
}
