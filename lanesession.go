package queue

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// fetchSession takes a session, for which one slot is taken, and starts a
// goroutine that works it off.
func (l *lane) fetchSession(ctx, base context.Context, test *downstreamTest) error {
	s, err := l.r.acceptSession(ctx, "")
	if err != nil {
		test.withdraw()
		l.p.slots.release(l.share, 1)
		if errors.Is(err, ErrNoSession) {
			return nil
		}
		return err
	}
	l.p.handlers.Go(func() {
		defer l.p.slots.release(l.share, 1)
		if err := l.workOff(ctx, base, s, test); err != nil && ctx.Err() == nil {
			l.rest(ctx, err)
		}
	})
	return nil
}

// sessionPause is how long a slot stays empty after a session that could not be
// received from: the next one could be had at once, and is likely to fare the same.
const sessionPause = time.Second

// rest waits after a session that failed, unless receiving has waited already.
func (l *lane) rest(ctx context.Context, err error) {
	var rejected *RejectedError
	switch {
	case errors.As(err, &rejected), errors.Is(err, ErrClosed):
		return // the message waits, and not its queue; the next call says more
	case errors.Is(err, ErrReceivingPaused), errors.Is(err, ErrKeyProvider), errors.Is(err, ErrReplayStore):
		return
	}
	wait := sessionPause
	var d *driver.Error
	if errors.As(err, &d) {
		wait = max(wait, d.RetryAfter)
	}
	l.r.log.LogAttrs(ctx, slog.LevelError, "Receiving from a session failed",
		slog.String("queue", l.r.queue), slog.String("error", err.Error()), slog.Duration("retry_in", wait))
	sleepUntil(ctx, time.Now().Add(wait))
}

// workOff handles the session's messages in order, one at a time, until it is
// empty, its turn is over, a message has to wait, or fetching ends. Closing the
// session releases what it still holds at once. Its error is that of receiving.
func (l *lane) workOff(ctx, base context.Context, s *Session, test *downstreamTest) error {
	kept := l.keeper.keepSession(s)
	defer func() {
		test.withdraw() // unless a message took it along
		l.keeper.drop(kept)
		cctx, cancel := context.WithTimeout(context.WithoutCancel(base), settleTimeout)
		defer cancel()
		if err := s.Close(cctx); err != nil {
			l.r.log.Warn("Session not released: its lock runs out", "queue", l.r.queue, "error", err.Error())
		}
	}()
	for turn := 0; turn < l.o.SessionTurn && ctx.Err() == nil; turn++ {
		b, err := s.Fetch(ctx, 1, l.o.SessionIdle)
		batch, rejected := b.Deliveries, b.Rejected
		switch {
		case err != nil && turn > 0 && errors.Is(err, ErrSessionLost):
			return nil // it was of some use before
		case err != nil:
			return err
		case len(batch) == 0 && len(rejected) > 0:
			continue
		case len(batch) == 0:
			return nil
		}
		batch[0].test, test = test, nil
		out := l.handleInSession(base, s, batch[0])
		switch {
		case out.name == driver.Completed, out.name == driver.DeadLettered:
		case out.name == driver.Abandoned && l.r.caps.AbandonDelay == driver.None:
			// The broker has no delay, and would give the message to the next
			// receiver at once: hold the session for that time.
			wctx, cancel := context.WithCancel(ctx)
			unhook := context.AfterFunc(s.Context(), cancel)
			sleepUntil(wctx, time.Now().Add(out.delay))
			unhook()
			cancel()
		default:
			return nil
		}
	}
	return nil
}

func (l *lane) handleInSession(base context.Context, s *Session, d *Delivery) outcome {
	hctx, end := context.WithCancelCause(base)
	defer end(nil)
	unhook := context.AfterFunc(s.Context(), func() { end(context.Cause(s.Context())) })
	defer unhook()
	var k *kept
	now := time.Now()
	if d.claim.token != "" {
		k = l.keeper.keepDelivery(d, now, l.o.MaxProcessing, end) // for its claim
	} else {
		k = l.keeper.limit(now, l.o.MaxProcessing, end) // the session's lock is kept
	}
	return l.handle(hctx, d, k)
}
