package queue

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/observe"
	"github.com/queue-runtime/queue/replay"
)

// How often a paused receiver tries one message, and how long it leaves a key
// provider or replay store alone that did not answer.
const (
	probeInterval    = 30 * time.Second
	outageFirstDelay = time.Second
	outageMaxDelay   = 30 * time.Second
	// askTimeout bounds one look at whether it answers again: a call that hung would
	// be the last one, since only one caller asks at a time.
	askTimeout = 15 * time.Second
)

// health stops a receiver from fetching when fetching could only do harm: after
// a row of authentication failures, which dead-letter, and while the key
// provider or the replay store is away, when each delivery would be spent for
// nothing.
type health struct {
	r   *Receiver
	max int

	mu       sync.Mutex // guards what follows; never held across a call
	failures int        // authentication failures in a row
	paused   bool
	probeAt  time.Time // when the next single message may be tried

	outage  string // error type, empty while all is well
	cause   error
	keyID   keys.ID // the key that could not be had
	delay   time.Duration
	retryAt time.Time
	asking  bool // somebody finds out whether the outage is over
}

func newHealth(r *Receiver) *health {
	return &health{r: r, max: r.options.MaxAuthFailures}
}

// admission is how many messages may be fetched. A probe is a single message
// that finds out whether a pause is over.
type admission struct {
	max   int
	probe bool
}

// well reports that nothing stands against fetching.
func (h *health) well() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.outage == "" && !h.paused
}

// admit waits, until deadline, for a time when messages may be fetched. Its
// error says why none may.
func (h *health) admit(ctx context.Context, max int, deadline time.Time) (admission, error) {
	for {
		h.mu.Lock()
		now := time.Now()
		var at time.Time
		var err error
		switch {
		case h.outage != "" && !h.asking && !now.Before(h.retryAt):
			h.asking = true
			h.retryAt = now.Add(h.delay) // others wait for what this caller finds
			outage, id, cause := h.outage, h.keyID, h.cause
			h.mu.Unlock()
			switch back, known := h.ask(ctx, outage, id, cause); {
			case ctx.Err() != nil:
				h.mu.Lock()
				h.asking = false
				h.mu.Unlock()
				return admission{}, ctx.Err()
			case !known:
				return admission{max: 1, probe: true}, nil
			case back:
				h.recovered(ctx)
			default:
				h.suspend(ctx, outage, id, cause, true)
			}
			continue
		case h.outage != "":
			at, err = h.retryAt, h.cause
			if h.asking && !now.Before(at) {
				at = now.Add(h.delay) // the answer takes its time: look again later, not at once
			}
		case h.paused && !now.Before(h.probeAt):
			h.probeAt = now.Add(probeInterval) // this caller's turn
			h.mu.Unlock()
			return admission{max: 1, probe: true}, nil
		case h.paused:
			at, err = h.probeAt, &driver.Error{RetryAfter: h.probeAt.Sub(now), Err: ErrReceivingPaused}
		default:
			h.mu.Unlock()
			return admission{max: max}, nil
		}
		h.mu.Unlock()
		late := !at.Before(deadline)
		if late {
			at = deadline
		}
		if !sleepUntil(ctx, at) {
			return admission{}, ctx.Err()
		}
		if late {
			return admission{}, err
		}
	}
}

// ask finds out, at no message's cost, whether what was away is back. known is
// false where only a message can tell.
func (h *health) ask(ctx context.Context, outage string, id keys.ID, cause error) (back, known bool) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	switch {
	case outage == driver.ReasonReplayStore && errors.Is(cause, replay.ErrFull):
		return false, false
	case outage == driver.ReasonReplayStore:
		// A claim that nobody holds: a store that answers says so.
		err := h.r.nonces.Renew(ctx, h.r.options.Group, "probe", "probe", time.Second)
		return errors.Is(err, replay.ErrClaimLost), true
	case h.r.keys == nil:
		return false, false // the keys are a CryptoProvider's own
	}
	if _, err := h.r.keys.ValidKeyIDs(ctx); err != nil {
		return false, true
	}
	_, err := h.r.keys.GetKey(ctx, id)
	return err == nil || errors.Is(err, keys.ErrNotFound), true
}

// suspend notes that the key provider or the replay store did not answer, and
// returns how long to leave it alone. asked says that this is what the caller
// whom admit let through has found.
func (h *health) suspend(ctx context.Context, outage string, id keys.ID, cause error, asked bool) time.Duration {
	h.mu.Lock()
	first, was := h.outage == "", h.outage
	switch {
	case first:
		h.delay = outageFirstDelay
	case asked:
		h.delay = min(2*h.delay, outageMaxDelay)
	}
	if first || asked {
		h.outage, h.keyID, h.cause = outage, id, cause
		h.retryAt = time.Now().Add(h.delay)
		h.asking = false
	}
	delay := h.delay
	h.mu.Unlock()
	another := asked && !first && was != outage
	if another { // what was away is back, or not reached any more: one reason at a time
		h.r.obs.Resumed(ctx, h.r.obs.Source, observe.Resumed{Reason: was})
	}
	if first || another {
		h.r.log.LogAttrs(ctx, slog.LevelError, "Receiving stopped until the provider answers",
			slog.String("queue", h.r.queue), slog.String("error_type", outage), slog.String("error", cause.Error()))
		h.r.obs.Paused(ctx, h.r.obs.Source, observe.Paused{Reason: outage})
	}
	return delay
}

// settled ends the turn of a probe that found nothing out: there was no message.
func (h *health) settled() {
	h.mu.Lock()
	h.asking = false
	h.mu.Unlock()
}

// recovered ends an outage.
func (h *health) recovered(ctx context.Context) {
	h.mu.Lock()
	was := h.outage
	h.outage, h.cause, h.delay, h.asking = "", nil, 0, false
	h.mu.Unlock()
	if was != "" {
		h.r.log.LogAttrs(ctx, slog.LevelInfo, "Receiving resumed", slog.String("queue", h.r.queue), slog.String("error_type", was))
		h.r.obs.Resumed(ctx, h.r.obs.Source, observe.Resumed{Reason: was})
	}
}

// authFailed counts an authentication failure. spare says that the message
// should be given back and not dead-lettered: receiving is paused, and it was
// only on its way when that happened.
func (h *health) authFailed(ctx context.Context, probe bool) (spare bool) {
	h.mu.Lock()
	spare = h.paused && !probe
	h.failures++
	trips := !h.paused && h.failures >= h.max
	if trips {
		h.paused = true
		h.probeAt = time.Now().Add(probeInterval)
	}
	h.mu.Unlock()
	if trips {
		h.r.log.LogAttrs(ctx, slog.LevelError, "Receiving PAUSED after repeated authentication failures: a wrong key is mounted, or somebody tampers with the queue",
			slog.String("queue", h.r.queue), slog.Int("failures", h.max))
		h.r.obs.Paused(ctx, h.r.obs.Source, observe.Paused{Reason: driver.ReasonAuthentication})
	}
	return spare
}

// opened notes a message that authenticated.
func (h *health) opened(ctx context.Context) {
	h.mu.Lock()
	resumed := h.paused
	h.failures, h.paused = 0, false
	h.mu.Unlock()
	if resumed {
		h.r.log.LogAttrs(ctx, slog.LevelInfo, "Receiving resumed", slog.String("queue", h.r.queue), slog.String("error_type", driver.ReasonAuthentication))
		h.r.obs.Resumed(ctx, h.r.obs.Source, observe.Resumed{Reason: driver.ReasonAuthentication})
	}
}

// sleepUntil waits until t and reports false where ctx ended first.
func sleepUntil(ctx context.Context, t time.Time) bool {
	d := time.Until(t)
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
