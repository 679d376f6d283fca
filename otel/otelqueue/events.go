package otelqueue

import (
	"context"

	"go.opentelemetry.io/otel/metric"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/observe"
)

// completed is the disposition of most messages.
const completed = string(driver.Completed)

// one adds 1 to a series that few messages add to.
func (i *instruments) one(ctx context.Context, c metric.Int64Counter, l labels) {
	c.Add(ctx, 1, i.series(l).add...)
}

// Sealed times the sealing of a message and counts the use of its key.
func (o *Observer) Sealed(ctx context.Context, s observe.Source, e observe.Sealed) {
	q := o.metrics.of(s.Queue)
	o.metrics.encrypt.Record(ctx, e.Took.Seconds(), q.queue.record...)
	q.sealed.add(&o.metrics.keyUses, labels{byKeyUse, s.Queue, string(e.KeyID), "seal"}, 1)
	if span := o.recording(ctx); span != nil {
		note{}.keyID(attrKey, e.KeyID).addTo(span, "queue.sealed")
	}
}

// Sent counts a message.
func (o *Observer) Sent(_ context.Context, s observe.Source, e observe.Sent) {
	o.metrics.of(s.Queue).sent[number(e.Encrypted)].add(&o.metrics.sent, labels{byEncrypted, s.Queue, word(e.Encrypted), ""}, 1)
}

// Opened times the opening of a message. If it opened, it counts the use of its key;
// otherwise the key ID is whatever an attacker wrote.
func (o *Observer) Opened(ctx context.Context, s observe.Source, e observe.Opened) {
	q := o.metrics.of(s.Queue)
	o.metrics.decrypt.Record(ctx, e.Took.Seconds(), q.queue.record...)
	key := attrKey
	if e.Err == nil {
		q.opened.add(&o.metrics.keyUses, labels{byKeyUse, s.Queue, string(e.KeyID), "open"}, 1)
	} else {
		key = attrClaimed
	}
	if span := o.recording(ctx); span != nil {
		note{}.keyID(key, e.KeyID).failure(e.Err).addTo(span, "queue.opened")
	}
}

// Received counts a message.
func (o *Observer) Received(_ context.Context, s observe.Source, e observe.Received) {
	o.metrics.of(s.Queue).received[number(e.Encrypted)].add(&o.metrics.received, labels{byEncrypted, s.Queue, word(e.Encrypted), ""}, 1)
}

// Rejected counts a message by what became of it.
func (o *Observer) Rejected(ctx context.Context, s observe.Source, e observe.Rejected) {
	o.metrics.one(ctx, o.metrics.rejected, labels{byDisposition, s.Queue, string(e.Disposition), ""})
	if span := o.recording(ctx); span != nil {
		note{}.keyID(attrClaimed, e.KeyID).text(attrReason, e.Reason).text(attrDisposition, string(e.Disposition)).
			failure(e.SettleErr).addTo(span, "queue.rejected")
	}
}

// Duplicate counts a message that came back after it was handled.
func (o *Observer) Duplicate(ctx context.Context, s observe.Source, e observe.Duplicate) {
	o.metrics.one(ctx, o.metrics.duplicates, labels{byQueue, s.Queue, "", ""})
	if span := o.recording(ctx); span != nil {
		note{}.keyID(attrKey, e.KeyID).failure(e.SettleErr).addTo(span, "queue.duplicate")
	}
}

// DeadLettered counts a dead letter by its reason.
func (o *Observer) DeadLettered(ctx context.Context, s observe.Source, e observe.DeadLettered) {
	o.metrics.one(ctx, o.metrics.deadLettered, labels{byReason, s.Queue, o.metrics.reason(e.Reason), ""})
	if span := o.recording(ctx); span != nil {
		note{}.text(attrReason, e.Reason).addTo(span, "queue.dead_lettered")
	}
}

// Redriven counts a dead letter that was sent back.
func (o *Observer) Redriven(ctx context.Context, s observe.Source, _ observe.Redriven) {
	o.metrics.one(ctx, o.metrics.redriven, labels{byQueue, s.Queue, "", ""})
}

// CryptoError counts a finding by its reason.
func (o *Observer) CryptoError(ctx context.Context, s observe.Source, e observe.CryptoError) {
	o.metrics.one(ctx, o.metrics.cryptoErrors, labels{byReason, s.Queue, e.Reason, ""})
	if span := o.recording(ctx); span != nil {
		note{}.keyID(attrClaimed, e.KeyID).text(attrReason, e.Reason).addTo(span, "queue.crypto_error")
	}
}

// Flood counts an alarm: at most one a minute for each receiver's queue.
func (o *Observer) Flood(ctx context.Context, s observe.Source, e observe.Flood) {
	o.metrics.one(ctx, o.metrics.floods, labels{byReason, s.Queue, e.Reason, ""})
	if span := o.recording(ctx); span != nil {
		note{}.text(attrReason, e.Reason).addTo(span, "queue.flood")
	}
}

// Handled times a handler by what became of its message.
func (o *Observer) Handled(ctx context.Context, s observe.Source, e observe.Handled) {
	by := o.metrics.of(s.Queue).completed
	if e.Disposition != driver.Completed {
		by = o.metrics.series(labels{byDisposition, s.Queue, string(e.Disposition), ""})
	}
	o.metrics.process.Record(ctx, e.Took.Seconds(), by.record...)
}

// Retried counts a message that was given back.
func (o *Observer) Retried(ctx context.Context, s observe.Source, e observe.Retried) {
	o.metrics.one(ctx, o.metrics.retries, labels{byPlanned, s.Queue, word(e.Planned), ""})
	if span := o.recording(ctx); span != nil {
		n := append(note{}, attrPlanned.Bool(e.Planned), attrDelay.Float64(e.Delay.Seconds()))
		n.addTo(span, "queue.retried")
	}
}

// Renewed counts a renewal, and as a failed operation one that failed.
func (o *Observer) Renewed(ctx context.Context, s observe.Source, e observe.Renewed) {
	result := "ok"
	if e.Err != nil {
		result = "error"
		o.metrics.one(ctx, o.metrics.failures, labels{byFailure, s.Queue, "renew", errorType(e.Err)})
	}
	o.metrics.one(ctx, o.metrics.renewals, labels{byResult, s.Queue, result, ""})
	if span := o.recording(ctx); span != nil {
		note{}.failure(e.Err).addTo(span, "queue.renewed")
	}
}

// Session counts the sessions that are held, and those that ended, by the way in which
// they ended.
func (o *Observer) Session(ctx context.Context, s observe.Source, e observe.Session) {
	queueAttrs := o.metrics.of(s.Queue).queue.add
	if e.State == observe.SessionAccepted {
		o.metrics.activeSessions.Add(ctx, 1, queueAttrs...)
		return
	}
	o.metrics.activeSessions.Add(ctx, -1, queueAttrs...)
	o.metrics.one(ctx, o.metrics.sessionsEnded, labels{byState, s.Queue, string(e.State), ""})
}

// InFlight counts the handlers that run.
func (o *Observer) InFlight(_ context.Context, s observe.Source, e observe.InFlight) {
	o.metrics.of(s.Queue).running.add(&o.metrics.processing, labels{byQueue, s.Queue, "", ""}, int64(e.Delta))
}

// ended times a call to the broker, and counts it if it failed. Handlers are timed by
// their event.
func (i *instruments) ended(ctx context.Context, queue string, c call, err error) {
	if err != nil && c.kind != observe.Process {
		l := labels{byFailure, queue, string(c.kind), errorType(err)}
		if c.kind == observe.Settle {
			l.shape, l.second = bySettleFailure, string(c.disposition)
		}
		i.one(ctx, i.failures, l)
	}
	switch c.kind {
	case observe.Send, observe.Redrive:
		i.send.Record(ctx, c.took.Seconds(), i.of(queue).queue.record...)
	case observe.Receive:
		i.receive.Record(ctx, c.took.Seconds(), i.of(queue).queue.record...)
	case observe.Settle:
		by := i.of(queue).completed
		if c.disposition != driver.Completed {
			by = i.series(labels{byDisposition, queue, string(c.disposition), ""})
		}
		i.settle.Record(ctx, c.took.Seconds(), by.record...)
	case observe.Process:
	}
}

func word(b bool) string {
	if b {
		return "true"
	}
	return "false"
}
