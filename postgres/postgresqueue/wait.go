package postgresqueue

import (
	"context"
	"math/rand/v2"
	"time"
)

// await calls try until it is done, wait is over, ctx ends or the source closes. In
// between it sleeps until a notification, the next time at which something is due, or
// the next poll.
func (s *source) await(ctx context.Context, wait time.Duration, try func() (bool, error)) error {
	deadline := time.Now().Add(wait) // by the monotonic clock
	overdue := 0                     // how often in a row something was due and not to be had
	for first := true; ; first = false {
		arrived := s.broker.arrivals.Next(s.queue)
		done, err := try()
		if err != nil || done {
			return err
		}
		if wait <= 0 || time.Until(deadline) <= 0 {
			return nil
		}
		if first && s.broker.listenNow(ctx) {
			continue // what came before it listened is found by trying once more
		}
		due, err := s.nextDue(ctx)
		if err != nil {
			return err
		}
		if due != nil && *due <= 0 {
			overdue++
		} else {
			overdue = 0
		}
		// Not all at the same time.
		poll := s.broker.options.Poll
		poll = poll*3/4 + rand.N(poll/2) //nolint:gosec // G404: jitter, not a secret
		if err := s.holder.Sleep(ctx, min(pauseFor(poll, due, overdue), max(0, time.Until(deadline))), arrived); err != nil {
			return err
		}
	}
}

const (
	// overduePause is how long to wait if something is due and no call gets it: it
	// came due just now, or another transaction has it locked. It doubles each time.
	overduePause = time.Millisecond

	// blockedPause bounds it: a transaction of a caller that sends may take long.
	blockedPause = 50 * time.Millisecond
)

// pauseFor is how long to sleep: until the next poll, or until something is due. due is
// nil for never, and overdue counts the looks in a row at which it was over.
func pauseFor(poll time.Duration, due *time.Duration, overdue int) time.Duration {
	switch {
	case due == nil:
		return poll
	case overdue > 0:
		return min(poll, overduePause<<min(overdue-1, 16), blockedPause)
	}
	return min(poll, max(*due, overduePause))
}

// nextDue is in how long something is due, nil for never.
func (s *source) nextDue(ctx context.Context) (*time.Duration, error) {
	var due *int64
	err := s.broker.request(ctx, func(ctx context.Context, c *conn) error {
		return c.QueryRow(ctx, s.broker.call("next_due", "$1::bigint"), s.queue).Scan(&due)
	})
	if err != nil || due == nil {
		return nil, err
	}
	d := microseconds(*due)
	return &d, nil
}
