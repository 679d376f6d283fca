package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// outcome is how a message is settled.
type outcome struct {
	name   driver.Disposition
	delay  time.Duration // of driver.Abandoned
	reason Reason        // of driver.DeadLettered
}

// judge decides what a handler's return means for its message. ctx is the
// handler's.
func (l *lane) judge(ctx context.Context, d *Delivery, err error) outcome {
	if err == nil {
		// Also when the lock is over: with nonces the work is remembered, and
		// the redelivery completed.
		return outcome{name: driver.Completed}
	}
	var again *retryAfterError
	var permanent *permanentError
	cause := context.Cause(ctx)
	switch {
	case errors.As(err, &permanent):
		return outcome{name: driver.DeadLettered, reason: Reason{Code: permanent.code, Description: l.describe(d, err)}}
	case errors.Is(cause, ErrDraining):
		return outcome{name: driver.Released}
	case errors.Is(cause, ErrLockLost), errors.Is(cause, ErrSessionLost):
		return outcome{name: driver.Lost}
	}
	var untried *untriedError
	if errors.As(err, &untried) {
		// Nothing was held against the message: never its last delivery.
		return outcome{name: driver.Abandoned, delay: l.bounded(untried.delay)}
	}
	l.tries.note(d.raw.ID)
	var delay time.Duration
	if errors.As(err, &again) {
		delay = again.delay
	} else {
		delay = l.o.Retry.Delay(d.Count)
	}
	if delay < 0 || d.Count >= l.o.MaxDeliveries {
		return outcome{name: driver.DeadLettered, reason: Reason{Code: driver.ReasonMaxDeliveries, Description: l.describe(d, err)}}
	}
	return outcome{name: driver.Abandoned, delay: l.bounded(delay)}
}

// bounded is a delay within what the broker can do.
func (l *lane) bounded(delay time.Duration) time.Duration {
	if most := l.r.caps.MaxDelay; most > 0 {
		return min(delay, most)
	}
	return delay
}

// describe says how often and when a message failed: no payload, and of the
// error only what is marked Safe.
func (l *lane) describe(d *Delivery, err error) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d deliveries", d.Count)
	if times := l.tries.times(d.raw.ID); len(times) > 0 {
		b.WriteString("; failed here at ")
		for i, t := range times[max(0, len(times)-5):] {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(t.UTC().Format(time.RFC3339))
		}
	}
	if text := safeText(err); text != "" {
		b.WriteString("; ")
		b.WriteString(text)
	}
	return b.String()
}

// settle carries an outcome out, again where the failure is a passing one, and
// returns what came of it. It gives ctx its end.
func (l *lane) settle(ctx *settleContext, d *Delivery, out outcome) outcome {
	if out.name == driver.Lost {
		// Nothing at the broker is this receiver's any more. The claim ends by
		// itself.
		return out
	}
	ctx.Context = l.deadline()
	for wait := 50 * time.Millisecond; ; wait *= 2 {
		err := l.settleOnce(ctx, d, out)
		if err == nil || wait > 50*time.Millisecond && errors.Is(err, ErrSettled) {
			// Settled already, on a repetition: the answer to the first was lost.
			if out.name != driver.Abandoned && out.name != driver.Released {
				l.tries.forget(d.raw.ID)
			}
			return out
		}
		var e *Error
		passing := errors.As(err, &e) && e.Transient
		if !passing || !sleepUntil(ctx, time.Now().Add(wait)) {
			if errors.Is(err, ErrLockLost) || errors.Is(err, ErrSessionLost) {
				out.name = driver.Lost
			} else {
				out.name = driver.Lost // its lock runs out, and it comes again
			}
			l.r.log.LogAttrs(ctx, slog.LevelError, "Message not settled",
				slog.String("queue", l.r.queue), slog.String("message_id", d.raw.ID), slog.String("error", err.Error()))
			l.onError(ctx, d, err)
			return out
		}
	}
}

// settleContext has the end of one context and the values of another. It is what
// remains of context.WithTimeout and WithoutCancel at an eighth of their cost.
type settleContext struct {
	context.Context
	values context.Context
}

// Value returns that of the handler's context: the trace, say.
func (c *settleContext) Value(key any) any { return c.values.Value(key) }

// deadline returns a context that ends between settleTimeout and half as much
// again from now. Settling shares it.
func (l *lane) deadline() context.Context {
	l.settleMu.Lock()
	defer l.settleMu.Unlock()
	now := time.Now()
	if now.After(l.settleRenew) {
		// The one before lives on for those that use it, and ends by itself.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(l.base), settleTimeout*3/2)
		context.AfterFunc(ctx, cancel)
		l.settleCtx = ctx
		l.settleRenew = now.Add(settleTimeout / 2)
	}
	return l.settleCtx
}

func (l *lane) settleOnce(ctx context.Context, d *Delivery, out outcome) error {
	switch out.name {
	case driver.Completed:
		return d.Complete(ctx)
	case driver.DeadLettered:
		err := d.DeadLetter(ctx, out.reason)
		if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, ErrQueueNotFound) {
			// No dead-letter queue: the message must not be lost.
			if e := d.Abandon(ctx, l.abandonDelay(l.o.Retry.Delay(d.Count))); e != nil {
				return e
			}
			return nil
		}
		return err
	}
	return d.Abandon(ctx, l.abandonDelay(out.delay))
}

// abandonDelay is a delay as the broker can do it: by itself, or not at all.
func (l *lane) abandonDelay(d time.Duration) time.Duration {
	if d <= 0 || l.r.caps.AbandonDelay == driver.None {
		return 0
	}
	return l.bounded(d)
}

// maxTries bounds how many failing messages a processor remembers, and how many
// times of each.
const (
	maxTries     = 4096
	maxTryTimes  = 16
	triesPerDrop = maxTries / 8
)

// tries remembers when messages failed in this process, to say so with the dead
// letter. It forgets rather than grow.
type tries struct {
	mu sync.Mutex
	at map[string][]time.Time
}

func newTries() *tries { return &tries{at: make(map[string][]time.Time)} }

func (t *tries) note(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.at[id]; !ok && len(t.at) >= maxTries {
		n := 0
		for old := range t.at {
			delete(t.at, old)
			if n++; n == triesPerDrop {
				break
			}
		}
	}
	times := append(t.at[id], time.Now())
	t.at[id] = times[max(0, len(times)-maxTryTimes):]
}

func (t *tries) times(id string) []time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]time.Time(nil), t.at[id]...)
}

func (t *tries) forget(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.at) > 0 {
		delete(t.at, id)
	}
}
