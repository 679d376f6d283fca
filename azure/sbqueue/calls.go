package sbqueue

import (
	"context"
	"errors"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// errLeft stands for the outcome of a call that has not ended.
var errLeft = errors.New("not ended")

// each calls f for 0 to n-1, at most width of them at once, and returns their
// errors. Their context ends with ctx and after callLimit. The SDK waits for its
// mutexes whatever a context says, and another call may hold them while it dials:
// what does not end within callGrace is left to itself, and Close waits for it.
func (b *Broker) each(ctx context.Context, n, width int, f func(context.Context, int) error) (errs []error, left []int) {
	errs = make([]error, n)
	if err := ctx.Err(); err != nil {
		return fill(errs, err), nil
	}
	width = min(width, n)
	if !b.begin(width) {
		return fill(errs, errClosed()), nil
	}
	bounded, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	type outcome struct {
		i   int
		err error
	}
	done := make(chan outcome, n)
	for first := range width {
		go func() {
			defer b.calls.Done()
			for i := first; i < n; i += width {
				done <- outcome{i, f(bounded, i)}
			}
		}()
	}
	fill(errs, errLeft)
	ended := bounded.Done()
	var late <-chan time.Time
	for got := 0; got < n; {
		select {
		case o := <-done:
			errs[o.i] = o.err
			got++
		case <-ended:
			ended, late = nil, time.After(callGrace)
		case <-late:
			got = n
		}
	}
	for i, err := range errs {
		if err == nil {
			continue
		}
		late := err == errLeft //nolint:errorlint // it is never wrapped
		if late {
			left = append(left, i)
		}
		if late || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			if errs[i] = ctx.Err(); errs[i] == nil {
				errs[i] = driver.Errorf(driver.Unavailable, "no answer within %s", callLimit)
			}
		}
	}
	return errs, left
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
