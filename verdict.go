package queue

import (
	"context"
	"log/slog"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/observe"
)

// verdict is what the pipeline found of one message.
type verdict struct {
	d   *Delivery
	err error
	// authentic says that the envelope opened: what its header says is true.
	authentic bool
	duplicate bool
	dueAt     time.Time // with ErrMessageFromFuture
}

// judge decides what becomes of a message that was found wanting: the table of
// DESIGN.md, "What becomes of a rejected message". A settlement of kind 0 leaves
// the lock to run out.
func (r *Receiver) judge(ctx context.Context, v *verdict, probe bool) (*RejectedError, driver.Settlement) {
	e := r.rejection(v, driver.DeadLettered)
	wait := func(d time.Duration) { e.Disposition, e.Delay = driver.Abandoned, d }
	switch e.Reason {
	case driver.ReasonAuthentication:
		if r.health.authFailed(ctx, probe) {
			wait(0)
		}
	case driver.ReasonUnsupportedVersion, driver.ReasonKeyNotFound:
		if v.d.Count < r.options.MaxDeliveries {
			wait(spread(v.d.Count, r.options.MaxDeliveries, r.options.RotationHorizon))
		}
	case driver.ReasonKeyProvider, driver.ReasonReplayStore:
		wait(r.health.suspend(ctx, e.Reason, v.d.KeyID, v.err, probe))
	case driver.ReasonMessageFromFuture:
		wait(max(time.Until(v.dueAt), time.Millisecond))
	case driver.ReasonNonceBusy:
		wait(r.lease(v.d.raw.LockedUntil, time.Now()))
	case "":
		// Not a finding of the pipeline: a CryptoProvider's own error, say.
		// Nothing was found against the message.
		e.Reason = driver.ReasonKeyProvider
		wait(r.health.suspend(ctx, e.Reason, v.d.KeyID, v.err, probe))
	}
	s := driver.Settlement{Delivery: v.d.raw}
	switch {
	case e.Disposition == driver.DeadLettered:
		s.Kind, s.Reason, s.Description = driver.MoveToDeadLetter, e.Reason, describe(e.Reason)
	case e.Delay > 0 && r.caps.AbandonDelay == driver.None:
		// The broker has no delay: the lock is one.
	default:
		if r.caps.MaxDelay > 0 {
			e.Delay = min(e.Delay, r.caps.MaxDelay)
		}
		s.Kind, s.Delay = driver.Abandon, e.Delay
	}
	return e, s
}

// spread returns the delay after delivery count of most, so that the delays
// double and add up to horizon.
func spread(count, most int, horizon time.Duration) time.Duration {
	steps := most - 1 // delays between most deliveries
	if steps < 1 {
		return horizon
	}
	count = min(max(count, 1), steps)
	if steps > 20 { // the first would be below a microsecond: start to double late
		if count <= steps-20 {
			return time.Second
		}
		count, steps = count-(steps-20), 20
	}
	unit := horizon / time.Duration(int64(1)<<steps-1)
	return max(unit<<(count-1), 10*time.Millisecond)
}

func (r *Receiver) rejection(v *verdict, as driver.Disposition) *RejectedError {
	return &RejectedError{
		Queue:       r.queue,
		BrokerID:    v.d.BrokerID,
		MessageID:   v.d.raw.ID,
		SessionID:   v.d.raw.SessionID,
		KeyID:       v.d.KeyID,
		Count:       v.d.Count,
		Reason:      ReasonOf(v.err),
		Disposition: as,
		Err:         v.err,
	}
}

// clip bounds an ID that is not authentic, and so as long as a broker likes, for
// a log line.
func clip(id string) string { return id[:min(len(id), MaxIDBytes)] }

// report tells Options.OnRejected, the log and the Observer of a rejection.
func (r *Receiver) report(ctx context.Context, e *RejectedError) {
	r.obs.CryptoError(ctx, r.obs.Source, observe.CryptoError{Reason: e.Reason, KeyID: e.KeyID})
	r.obs.Rejected(ctx, r.obs.Source, observe.Rejected{Reason: e.Reason, Disposition: e.Disposition, KeyID: e.KeyID, SettleErr: e.SettleErr})
	if e.Disposition == driver.DeadLettered && e.SettleErr == nil {
		r.obs.DeadLettered(ctx, r.obs.Source, observe.DeadLettered{Reason: e.Reason})
	}
	level := slog.LevelWarn
	if e.Disposition == driver.DeadLettered || e.SettleErr != nil {
		level = slog.LevelError
	}
	if r.log.Enabled(ctx, level) {
		attrs := []slog.Attr{
			slog.String("queue", r.queue), slog.String("message_id", clip(e.MessageID)), slog.String("error_type", e.Reason),
			slog.String("disposition", string(e.Disposition)), slog.Int("delivery", e.Count), slog.String("error", e.Err.Error()),
		}
		if e.SettleErr != nil {
			attrs = append(attrs, slog.String("settle_error", e.SettleErr.Error()))
		}
		r.log.LogAttrs(ctx, level, "Message rejected", attrs...)
	}
	if f := r.client.options.OnRejected; f != nil {
		f(ctx, e)
	}
}

// received notes a message that is handed to the application.
func (r *Receiver) received(ctx context.Context, d *Delivery) {
	r.obs.Received(ctx, r.obs.Source, observe.Received{Encrypted: d.Encrypted, KeyID: d.KeyID, Bytes: len(d.Body)})
	if d.Encrypted {
		if r.log.Enabled(ctx, slog.LevelInfo) {
			r.log.LogAttrs(ctx, slog.LevelInfo, "Message received with encryption",
				slog.String("queue", r.queue), slog.String("message_id", d.ID),
				slog.Bool("encrypted", true), slog.String("key_id", string(d.KeyID)))
		}
		return
	}
	level := slog.LevelWarn
	if r.cfg.PlaintextPolicy == AllowWithAlert {
		level = slog.LevelError
		r.obs.CryptoError(ctx, r.obs.Source, observe.CryptoError{Reason: driver.ReasonPlaintextAllowed})
	}
	r.log.LogAttrs(ctx, level, "Message received WITHOUT encryption",
		slog.String("queue", r.queue), slog.String("message_id", clip(d.ID)), slog.Bool("encrypted", false))
}
