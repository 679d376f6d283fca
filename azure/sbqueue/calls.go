package sbqueue

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// each calls f for 0 to n-1, at most so many of them at once, and returns their
// errors. It waits until ctx ends, and callLimit and callGrace at most. The SDK
// waits for its mutexes whatever a context says, and another call may hold them
// while it dials: what has not ended is left to itself, its index is in what is
// returned second, and Close waits for it. f has to bound itself.
func (b *Broker) each(ctx context.Context, n, most int, f func(int) error) ([]error, []int) {
	errs := make([]error, n)
	if err := ctx.Err(); err != nil {
		return fill(errs, err), nil
	}
	width := min(most, n)
	if !b.begin(width) {
		return fill(errs, errClosed()), nil
	}
	limit := b.limit.context(context.Background(), callLimit)
	done := make(chan int, n) // errs has the outcome of those that it brought
	for first := range width {
		go func() {
			defer b.calls.Done()
			for i := first; i < n && limit.Err() == nil; i += width {
				errs[i] = f(i)
				done <- i
			}
		}()
	}
	var few [64]bool
	brought := few[:]
	if n > len(few) {
		brought = make([]bool, n)
	}
	ended, over := ctx.Done(), limit.Done()
	var late <-chan time.Time
	got := 0
	for waiting := true; waiting && got < n; {
		select {
		case i := <-done:
			brought[i] = true
			got++
		case <-ended:
			ended, over, late = nil, nil, time.After(callGrace/10)
		case <-over:
			ended, over, late = nil, nil, time.After(callGrace)
		case <-late:
			waiting = false
		}
	}
	if got == n {
		return unanswered(ctx, errs), nil
	}
	known := make([]error, n) // errs is still written to
	var left []int
	for i := range known {
		if brought[i] {
			known[i] = errs[i]
			continue
		}
		left = append(left, i)
		known[i] = context.DeadlineExceeded
	}
	return unanswered(ctx, known), left
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

// errSilent ends a call that took too long. Another one at once would have no better
// chance: it would go over the same connection.
var errSilent = &driver.Error{Kind: driver.Unavailable, Err: errors.New("the broker does not answer")}

// unanswered says of calls that were given up whether ctx or the broker was at
// fault.
func unanswered(ctx context.Context, errs []error) []error {
	for i, err := range errs {
		if err != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
			if errs[i] = ctx.Err(); errs[i] == nil {
				errs[i] = driver.Errorf(driver.Unavailable, "the broker does not answer")
			}
		}
	}
	return errs
}

// rolling gives contexts of the same length, each to all who ask within the time
// of a step.
type rolling struct {
	mu   sync.Mutex // guards what follows
	now  context.Context
	next time.Time
}

// step is by how much a rolling context may be longer than asked for.
const step = 500 * time.Millisecond

// context returns one that ends d from now, or a step later, and with parent,
// which is always the same.
func (r *rolling) context(parent context.Context, d time.Duration) context.Context {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.After(r.next) {
		// The one before lives on for those who have it, and ends by itself.
		ctx, cancel := context.WithTimeout(parent, d+step)
		context.AfterFunc(ctx, cancel)
		r.now, r.next = ctx, now.Add(step)
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
		if !rest(ctx, over, pauses[n]) {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return err
		}
	}
}

// rest waits for d, and reports whether neither context ended.
func rest(ctx, over context.Context, d time.Duration) bool {
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

func fill(errs []error, err error) []error {
	for i := range errs {
		errs[i] = err
	}
	return errs
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

// discard closes what the SDK made and is of no more use, in the background: it
// tells the broker, who may not answer.
func (b *Broker) discard(r closer) {
	if !b.begin(1) {
		return // Close ends it with the connection
	}
	go func() {
		defer b.calls.Done()
		ctx, cancel := context.WithTimeout(context.Background(), closeLink)
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
