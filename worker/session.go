package worker

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/driver"
)

// fetchSession takes a session, for which one slot is taken, and starts a goroutine
// that works through it.
func (c *consumer) fetchSession(ctx context.Context, test backoff.Permit) error {
	s, err := c.receiver.NextSession(ctx)
	if err != nil {
		test.Unused()
		c.pool.slots.release(c.share, 1)
		if errors.Is(err, queue.ErrNoSession) {
			return nil
		}
		return err
	}
	c.pool.handlers.Go(func() {
		defer c.pool.slots.release(c.share, 1)
		if err := c.workThrough(ctx, s, test); err != nil && ctx.Err() == nil {
			c.pause(ctx, err)
		}
	})
	return nil
}

// sessionPause is how long a slot stays empty after a session that could not be
// received from: the next one could be had at once, and is likely to fare the same.
const sessionPause = time.Second

// pause waits after a session that failed, unless receiving has waited already.
func (c *consumer) pause(ctx context.Context, err error) {
	var rejected *queue.RejectedError
	if errors.As(err, &rejected) || errors.Is(err, queue.ErrClosed) || receivingWaited(err) {
		return // one message waits, and not its queue; or the next call says more
	}
	wait := max(sessionPause, retryAfter(err))
	c.log.LogAttrs(ctx, slog.LevelError, "Receiving from a session failed",
		slog.String("queue", c.name), slog.String("error", err.Error()), slog.Duration("retry_in", wait))
	backoff.Sleep(ctx, wait)
}

// workThrough handles the session's messages in order, one at a time, until it is
// empty, its turn is over, a message has to wait, or fetching ends. A session without a name
// has one message: no other is waited for. Closing the session releases what it still holds
// at once. Its error is an error of receiving.
func (c *consumer) workThrough(ctx context.Context, s *queue.Session, test backoff.Permit) error {
	l := &lease{lock: sessionLock{s}, cancel: func(error) {}}
	c.renewer.keep(l, time.Now())
	defer func() {
		test.Unused() // unless a message took it along
		c.renewer.drop(l)
		closing, cancel := context.WithTimeout(context.WithoutCancel(c.base), settleTimeout)
		defer cancel()
		if err := s.Close(closing); err != nil {
			c.log.LogAttrs(closing, slog.LevelWarn, "Session not released: its lock runs out",
				slog.String("queue", c.name), slog.String("error", err.Error()))
		}
	}()
	for turn := 0; turn < c.o.SessionTurn && ctx.Err() == nil; turn++ {
		if c.o.Downstream != nil && c.asksInSession() && !test.Test() {
			permit, _, allowed := c.o.Downstream.Allow()
			if !allowed {
				return nil // a message that was fetched would be given back, and the delivery counts
			}
			if permit.Test() {
				test = permit
			} else {
				permit.Unused()
			}
		}
		if !c.isolated.enter(ctx) {
			return nil
		}
		batch, err := s.Fetch(ctx, 1, c.o.SessionIdle)
		if len(batch.Deliveries) == 0 {
			c.isolated.leave()
		}
		switch {
		case errors.Is(err, queue.ErrNoMessage):
			return nil // it is empty
		case err != nil && turn > 0 && errors.Is(err, queue.ErrSessionLost):
			return nil // some of it was handled before
		case err != nil:
			return err
		case len(batch.Deliveries) == 0 && s.ID() == "":
			return nil // its one message was rejected
		case len(batch.Deliveries) == 0:
			continue
		}
		j := job{delivery: batch.Deliveries[0], permit: test}
		test = backoff.Permit{}
		if !c.goesOn(ctx, s, c.handleEntered(ctx, s, j)) || s.ID() == "" {
			return nil
		}
	}
	return nil
}

// goesOn reports whether the next message of s may be handled after one was settled. On
// a broker that has no delay it holds the session for the delay, because the broker
// would give the message to the next receiver at once.
func (c *consumer) goesOn(ctx context.Context, s *queue.Session, last settlement) bool {
	switch last.disposition {
	case driver.Completed, driver.DeadLettered:
		return true
	case driver.Abandoned, driver.Released:
	case driver.Lost:
		return false
	}
	if c.caps.AbandonDelay != driver.None {
		return false
	}
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	unhook := context.AfterFunc(s.Context(), cancel)
	defer unhook()
	backoff.Sleep(waiting, last.delay)
	return true
}

// handleEntered handles one message of s: among others, for which the isolation was
// entered, or alone.
func (c *consumer) handleEntered(ctx context.Context, s *queue.Session, j job) settlement {
	if !c.suspects(j.delivery) {
		defer c.isolated.leave()
		return c.handleInSession(s, j)
	}
	c.isolated.leave()
	turn := c.isolate(ctx, j, c.claimOf(j))
	if turn == nil {
		return settlement{disposition: driver.Lost}
	}
	defer turn.leave()
	turn.limit(c.isolationTime(), func() {}) // the other sessions go on
	return c.handleInSession(s, j)
}

// claimOf is what has to be extended of a message of a session beside the session's lock:
// its claim, nil if it has none.
func (c *consumer) claimOf(j job) lock {
	if c.tracks && j.delivery.Encrypted {
		return claimLock{messageLock{j.delivery}}
	}
	return nil
}

// handleInSession handles one message of s, unless the session was lost meanwhile: another
// receiver has its messages by then.
func (c *consumer) handleInSession(s *queue.Session, j job) settlement {
	if s.Context().Err() != nil {
		j.permit.Unused()
		return settlement{disposition: driver.Lost}
	}
	ctx, cancel := context.WithCancelCause(c.base)
	defer cancel(nil)
	unhook := context.AfterFunc(s.Context(), func() { cancel(context.Cause(s.Context())) })
	defer unhook()
	r := c.start(ctx, time.Now(), cancel, j, c.claimOf(j)) // the lease of the session keeps the lock
	return r.do()
}
