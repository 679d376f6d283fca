package queue

import (
	"context"
	"log/slog"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/intake"
	"github.com/queue-runtime/queue/observe"
)

// This file reports to the log, the Observer and OnRejected what became of received
// messages, and when a receiver stops and resumes.

// rejection describes a message that is not delivered. What becomes of it is filled in
// when that is decided.
func (r *Receiver) rejection(t *taken, reason string) *RejectedError {
	return &RejectedError{
		Queue:     r.queue,
		BrokerID:  t.d.BrokerID,
		MessageID: t.d.raw.ID,
		SessionID: t.d.raw.SessionID,
		KeyID:     t.d.KeyID,
		Count:     t.d.Count,
		Reason:    reason,
		Err:       t.err,
	}
}

// clip bounds an ID for a log line: an ID that is not authentic can have any length.
func clip(id string) string { return id[:min(len(id), MaxIDBytes)] }

func (r *Receiver) reportRejected(ctx context.Context, e *RejectedError) {
	if e.Reason != driver.ReasonMaxDeliveries {
		r.obs.CryptoError(ctx, r.obs.Source, observe.CryptoError{Reason: e.Reason, KeyID: e.KeyID})
	}
	became := e.Disposition
	if e.SettleErr != nil {
		became = driver.Lost // it comes again when its lock runs out
	}
	r.obs.Rejected(ctx, r.obs.Source, observe.Rejected{Reason: e.Reason, Disposition: became, KeyID: e.KeyID, SettleErr: e.SettleErr})
	if became == driver.DeadLettered {
		r.obs.DeadLettered(ctx, r.obs.Source, observe.DeadLettered{Reason: e.Reason})
	}
	level := slog.LevelWarn
	switch {
	case e.Disposition == driver.DeadLettered || e.SettleErr != nil:
		level = slog.LevelError
	case e.Reason == driver.ReasonAuthentication:
		level = slog.LevelDebug // given back, perhaps often: reportChange tells of the key
	}
	if r.log.Enabled(ctx, level) {
		attrs := []slog.Attr{
			slog.String("queue", r.queue), slog.String("message_id", clip(e.MessageID)), slog.String("reason", e.Reason),
			slog.String("disposition", string(became)), slog.Int("delivery", e.Count), slog.String("error", e.Err.Error()),
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

func (r *Receiver) reportDuplicate(ctx context.Context, e *RejectedError) {
	r.obs.Duplicate(ctx, r.obs.Source, observe.Duplicate{KeyID: e.KeyID, SettleErr: e.SettleErr})
	queue, id := slog.String("queue", r.queue), slog.String("message_id", clip(e.MessageID))
	if e.SettleErr != nil {
		r.log.LogAttrs(ctx, slog.LevelInfo, "Message was handled before and only its completion was lost: it comes again",
			queue, id, slog.String("settle_error", e.SettleErr.Error()))
		return
	}
	r.log.LogAttrs(ctx, slog.LevelInfo, "Message was handled before and only its completion was lost: completed", queue, id)
}

// reportReceived notes a message that is handed to the application.
func (r *Receiver) reportReceived(ctx context.Context, d *Delivery) {
	r.obs.Received(ctx, r.obs.Source, observe.Received{Encrypted: d.Encrypted, KeyID: d.KeyID, Bytes: len(d.Body)})
	if d.Encrypted {
		if r.log.Enabled(ctx, slog.LevelInfo) {
			r.log.LogAttrs(ctx, slog.LevelInfo, "Message received with encryption",
				slog.String("queue", r.queue), slog.String("message_id", d.ID),
				slog.Bool("encrypted", true), slog.String("key_id", string(d.KeyID)))
		}
		return
	}
	r.log.LogAttrs(ctx, r.reportPlaintext(ctx), "Message received WITHOUT encryption",
		slog.String("queue", r.queue), slog.String("message_id", clip(d.ID)), slog.Bool("encrypted", false))
}

// reportPlaintext tells the Observer of plaintext that is accepted, if the policy asks
// for it, and returns the level of its log line.
func (r *Receiver) reportPlaintext(ctx context.Context) slog.Level {
	if r.cfg.PlaintextPolicy != AllowWithAlert {
		return slog.LevelWarn
	}
	r.obs.CryptoError(ctx, r.obs.Source, observe.CryptoError{Reason: driver.ReasonPlaintextAllowed})
	return slog.LevelError
}

// reportChange tells that the receiver stopped or resumed, or suspended a key.
func (r *Receiver) reportChange(ctx context.Context, c intake.Change) {
	switch {
	case c.Kind == intake.Resumed:
		r.obs.Resumed(ctx, r.obs.Source, observe.Resumed{Reason: c.Reason})
		r.log.LogAttrs(ctx, slog.LevelInfo, "Receiving resumed", slog.String("queue", r.queue), slog.String("reason", c.Reason))
	case c.Kind == intake.Suspended:
		r.log.LogAttrs(ctx, slog.LevelError, "Messages under one key do not open and are given back: a wrong secret is mounted under its ID, or they are forged",
			slog.String("queue", r.queue), slog.String("key_id", string(c.KeyID)), slog.Int("failures", r.options.MaxAuthFailures))
	case c.Reason == driver.ReasonAuthentication:
		r.obs.Paused(ctx, r.obs.Source, observe.Paused{Reason: c.Reason})
		r.log.LogAttrs(ctx, slog.LevelError, "Receiving PAUSED: messages open under no key of this receiver. A wrong secret is mounted, or all that waits is forged",
			slog.String("queue", r.queue), slog.String("key_id", string(c.KeyID)), slog.Int("failures", r.options.MaxAuthFailures))
	default:
		r.obs.Paused(ctx, r.obs.Source, observe.Paused{Reason: c.Reason})
		r.log.LogAttrs(ctx, slog.LevelError, "Receiving stopped until the provider answers",
			slog.String("queue", r.queue), slog.String("reason", c.Reason), slog.String("error", c.Cause.Error()))
	}
}
