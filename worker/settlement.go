package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/driver"
)

const (
	// settleTimeout bounds the settling of one message while the pool runs, and the
	// closing of a session: longer than a broker's short outage, shorter than the
	// usual lock of 30 s. It runs on a context of its own, because a message must not
	// stay locked when a handler's context ends.
	settleTimeout = 15 * time.Second
	// firstSettleWait is how long settling waits before the second attempt; each wait
	// is twice the one before.
	firstSettleWait = 50 * time.Millisecond
	// maxTimesTold is how many failures a dead letter's description names: with 21
	// bytes each and the public text it stays below the 512 bytes of queue.Reason.
	maxTimesTold = 5
)

// settle carries s out for the message of r, again if the failure is a passing one, and
// returns what became of the message.
func (r *run) settle(ctx context.Context, s settlement) settlement {
	if s.disposition == driver.Lost {
		// Nothing at the broker is this receiver's any more. The claim ends by itself.
		return s
	}
	wait := firstSettleWait
	for attempt := 1; ; attempt++ {
		done, err := r.trySettle(ctx, s)
		// Settled already, on a repetition: the answer to the first was lost.
		if err == nil || attempt > 1 && errors.Is(err, queue.ErrSettled) {
			return done
		}
		var e *queue.Error
		passing := errors.As(err, &e) && e.Transient
		if !passing || !backoff.Sleep(ctx, wait) {
			s.disposition = driver.Lost // its lock runs out, and it comes again
			r.c.log.LogAttrs(ctx, slog.LevelError, "Message not settled",
				slog.String("queue", r.c.name), slog.String("message_id", r.id), slog.String("error", err.Error()))
			r.c.onError(ctx, r.delivery, err)
			return s
		}
		wait *= 2
	}
}

// trySettle makes one attempt, and returns what s comes to if it succeeds.
func (r *run) trySettle(ctx context.Context, s settlement) (settlement, error) {
	d := r.delivery
	switch s.disposition {
	case driver.Completed:
		return s, d.Complete(ctx)
	case driver.Released:
		return s, d.Release(ctx, r.c.brokerDelay(s.delay))
	case driver.Abandoned:
		return s, d.Abandon(ctx, r.c.brokerDelay(s.delay))
	case driver.DeadLettered, driver.Lost:
	}
	reason := queue.Reason{Code: s.code, Description: r.describe(s.failure)}
	if r.role != exceeded { // else no handler failed
		reason.Detail = detail(s.failure)
	}
	err := d.DeadLetter(ctx, reason)
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, queue.ErrQueueNotFound) {
		// There is no dead-letter queue, and the message must not be lost. It has had
		// its retries, so it waits for as long as the last one at the most.
		s.disposition, s.delay = driver.Abandoned, r.c.rules.bound(backoff.DefaultMax)
		return s, d.Abandon(ctx, r.c.brokerDelay(s.delay))
	}
	return s, err
}

// brokerDelay is a delay as the broker can do it: 0 if it has none.
func (c *consumer) brokerDelay(d time.Duration) time.Duration {
	if c.caps.AbandonDelay == driver.None {
		return 0
	}
	return d
}

// describe says how often and when a message failed: no payload, and of the error only
// what is marked with Public.
func (r *run) describe(err error) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d deliveries", r.count)
	times := r.c.failures.times(r.id)
	for i, t := range times[max(0, len(times)-maxTimesTold):] {
		if i == 0 {
			b.WriteString("; failed here at ")
		} else {
			b.WriteString(", ")
		}
		b.WriteString(t.UTC().Format(time.RFC3339))
	}
	if text := publicText(err); text != "" {
		b.WriteString("; ")
		b.WriteString(text)
	}
	return b.String()
}

// giveBack releases a delivery that no handler saw. An error is of no use: the lock
// runs out.
func (c *consumer) giveBack(d *queue.Delivery) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.base), settleTimeout)
	defer cancel()
	_ = d.Release(ctx, 0)
}

// deadlines hands out contexts that end between settleTimeout and half as much again
// after they were asked for, by sharing one among the messages of half a settleTimeout.
// A context.WithTimeout for each message costs five allocations and a sixth of the time
// that the pool takes for it (BenchmarkPool).
type deadlines struct {
	base context.Context // for its values

	now atomic.Pointer[deadline] // nil before the first
}

// deadline is a context that is handed out until renewAt.
type deadline struct {
	ctx     context.Context
	renewAt time.Time
}

func (s *deadlines) next(now time.Time) context.Context {
	d := s.now.Load()
	if d == nil || now.After(d.renewAt) {
		// The one before lives on for its users, and ends by itself; so does one that
		// another message makes at the same time.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(s.base), settleTimeout*3/2)
		context.AfterFunc(ctx, cancel)
		d = &deadline{ctx, now.Add(settleTimeout / 2)}
		s.now.Store(d)
	}
	return d.ctx
}

// settleContext has the end of a shared deadline, and the values of the operation that
// it is part of: its trace, for example.
type settleContext struct {
	context.Context
	values context.Context
}

// Value returns the operation's value.
func (c *settleContext) Value(key any) any { return c.values.Value(key) }
