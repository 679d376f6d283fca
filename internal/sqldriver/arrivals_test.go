package sqldriver

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// TestArrivals: a call that waits is woken by what concerns its queue, and by the end of its
// time, its context or its holder.
func TestArrivals(t *testing.T) {
	for name, c := range map[string]struct {
		wake func(*Arrivals, *Holder, context.CancelFunc)
		took time.Duration
		want error
	}{
		"queue":       {func(a *Arrivals, _ *Holder, _ context.CancelFunc) { a.Notify(2, 1) }, time.Second, nil},
		"all":         {func(a *Arrivals, _ *Holder, _ context.CancelFunc) { a.NotifyAll() }, time.Second, nil},
		"other queue": {func(a *Arrivals, _ *Holder, _ context.CancelFunc) { a.Notify(2, -1) }, time.Minute, nil},
		"closed":      {func(_ *Arrivals, h *Holder, _ context.CancelFunc) { h.Shut() }, time.Second, driver.ErrClosed},
		"left":        {func(_ *Arrivals, _ *Holder, leave context.CancelFunc) { leave() }, time.Second, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var a Arrivals
				h := NewHolder(1)
				ctx, leave := context.WithCancel(t.Context())
				defer leave()
				arrived := a.Next(1)
				begin := time.Now()
				time.AfterFunc(time.Second, func() { c.wake(&a, &h, leave) })
				if err := h.Sleep(ctx, time.Minute, arrived); !errors.Is(err, c.want) || time.Since(begin) != c.took {
					t.Errorf("%v after %s, want %v after %s", err, time.Since(begin), c.want, c.took)
				}
			})
		})
	}
}
