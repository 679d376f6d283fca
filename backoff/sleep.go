package backoff

import (
	"context"
	"time"
)

// Sleep waits for d, and reports whether it did: false if ctx ended first. If d is 0 or
// less it does not wait and reports whether ctx goes on.
func Sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 || ctx.Err() != nil {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
