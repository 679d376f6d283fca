package sqlitequeue

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// closeGrace is how long giving back goes on after its context has ended: callers often
// close, or give up, because their context is over, and what they hold must go back.
const closeGrace = 3 * time.Second

// giving runs f, which gives back what is held, with a context that outlasts ctx.
func giving(ctx context.Context, f func(context.Context) error) error {
	later, cancel := outlasting(ctx)
	defer cancel()
	err := f(later)
	if err != nil && later.Err() != nil {
		return driver.Errorf(driver.Unavailable, "another process held the lock on the file for too long")
	}
	return err
}

// outlasting returns a context that ends closeGrace after ctx does.
func outlasting(ctx context.Context) (context.Context, context.CancelFunc) {
	later, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		t := time.AfterFunc(closeGrace, cancel)
		context.AfterFunc(later, func() { t.Stop() })
	})
	return later, func() { stop(); cancel() }
}

// closeAll closes all side by side: they share a transaction, and the wait for the lock on
// the file.
func closeAll[C interface{ Close(context.Context) error }](ctx context.Context, all []C) error {
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, c := range all {
		wg.Go(func() { errs[i] = c.Close(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
