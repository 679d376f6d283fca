package sbqueue

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestDialLimiter: while the broker is away several callers make few attempts, ever
// more rarely, and go on at once when one of them has reached it.
func TestDialLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l dialLimiter
		ctx := t.Context()
		var mu sync.Mutex
		var attempts []time.Time
		back := time.Now().Add(time.Minute)
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() {
				for {
					if ok, err := l.wait(ctx, context.Background(), time.Hour); !ok || err != nil {
						t.Errorf("wait: %t, %v", ok, err)
						return
					}
					mu.Lock()
					attempts = append(attempts, time.Now())
					mu.Unlock()
					if !time.Now().Before(back) {
						l.reached()
						return
					}
					l.failed(time.Now())
				}
			})
		}
		all.Wait()
		if late := time.Since(back); late > longestDial {
			t.Errorf("all went on %s after the broker was back, want %s at most", late, longestDial)
		}
		if n := len(attempts); n > 5+6+2*60/5+5 {
			t.Errorf("%d attempts in a minute", n)
		}
		if ok, err := l.wait(ctx, context.Background(), 0); !ok || err != nil {
			t.Errorf("after that: %t, %v", ok, err)
		}
		l.failed(time.Now())
		if ok, err := l.wait(ctx, context.Background(), time.Millisecond); ok || err != nil {
			t.Errorf("a wait that is shorter than the pause: %t, %v", ok, err)
		}
	})
}
