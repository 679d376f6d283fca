package sqldriver

import (
	"context"
	"time"
)

// CloseGrace is how long giving back goes on after its context has ended: callers often close,
// or give up, because their context is over, and what they hold must go back.
const CloseGrace = 3 * time.Second

// Outlasting returns a context that ends d after ctx does. The caller cancels it.
func Outlasting(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	later, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		t := time.AfterFunc(d, cancel)
		context.AfterFunc(later, func() { t.Stop() })
	})
	return later, func() { stop(); cancel() }
}

// GiveBack runs f, which gives back what is held, with a context that ends CloseGrace after
// ctx does. If f fails because of that, its error is late.
func GiveBack(ctx context.Context, late error, f func(context.Context) error) error {
	later, cancel := Outlasting(ctx, CloseGrace)
	defer cancel()
	err := f(later)
	if err != nil && later.Err() != nil {
		return late
	}
	return err
}
