package sqlitequeue

import (
	"context"
	"time"
)

// lookAgain is how long a call that waits for dead letters sleeps at most: what
// its own process sends and locks can become one, and does not ring for it.
const lookAgain = time.Second

// lookResult is what an attempt found: whether it is done, and when, in Unix
// nanoseconds, time alone may change its answer; 0 if it will not.
type lookResult struct {
	done bool
	next int64
}

// await calls try until it is done, wait is over, ctx ends or the source closes.
// In between it sleeps until something happens to the queue.
func (s *source) await(ctx context.Context, wait time.Duration, try func() (lookResult, error)) error {
	var deadline time.Time // by the monotonic clock
	watching := false
	defer func() {
		if watching {
			s.broker.file.Unwatch()
		}
	}()
	for {
		signal := s.broker.arrivals.Next(s.queue)
		look, err := try()
		if err != nil || look.done {
			return err
		}
		now := time.Now()
		if deadline.IsZero() {
			deadline = now.Add(wait)
		}
		left := deadline.Sub(now)
		if wait <= 0 || left <= 0 {
			return nil
		}
		if !watching {
			// From here on commits of other processes ring, too. One that
			// came before is found by trying once more.
			watching = true
			s.broker.file.Watch()
			continue
		}
		if s.queue < 0 {
			left = min(left, lookAgain)
		}
		if look.next > 0 {
			left = min(left, max(0, time.Duration(look.next-now.UnixNano())))
		}
		if err := s.holder.Sleep(ctx, left, signal); err != nil {
			return err
		}
	}
}
