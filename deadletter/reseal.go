package deadletter

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/intake"
	"github.com/queue-runtime/queue/internal/sealing"
	"github.com/queue-runtime/queue/replay"
)

// This file decides whether a letter may be sealed anew. Its invariant: what was handled
// is never made new, and neither is what cannot be told apart from it, unless the caller
// vouches for it. A letter that is sealed anew keeps its identity, so that it is handled
// once however often it is redriven (qre1, Section 5.3): nothing has to be marked.

// reseal opens m and makes back the message sealed anew.
func (x *redrive) reseal(ctx context.Context, m *driver.Delivery, back *driver.Message) (refused string, err error) {
	q := x.q
	var opened sealing.Opened
	f := q.opener.Open(ctx, m, &opened)
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case f != nil && f.Reason == driver.ReasonKeyProvider:
		return "", f.Err
	case f != nil:
		return f.Reason, nil
	case !opened.Sealed:
		return RefusedPlaintext, nil
	}
	now := time.Now()
	if x.early(&opened, now) {
		return driver.ReasonMessageFromFuture, nil
	}
	ttl := x.o.TTL
	if end := opened.ExpiresAt(); ttl == 0 && !end.IsZero() && !now.Before(end) {
		return RefusedExpired, nil
	}
	if refused, err := x.judge(ctx, m, &opened, now); refused != "" || err != nil {
		return refused, err
	}
	if x.o.DryRun {
		return "", nil
	}
	id, f := q.sealer.CurrentKey(ctx)
	if f == nil {
		f = q.sealer.Reseal(ctx, id, &opened, back, ttl)
	}
	if f != nil {
		back.Body = nil // it may hold the plaintext
		return "", f.Err
	}
	return "", nil
}

// early reports whether the message is not due yet.
func (x *redrive) early(opened *sealing.Opened, now time.Time) bool {
	due := opened.NotBefore()
	if !x.q.cfg.InsecureSkipFreshness && opened.EncryptedAt().After(due) {
		due = opened.EncryptedAt()
	}
	return now.Before(due.Add(-x.q.cfg.MaxClockSkew))
}

// judge asks the replay store, which changes nothing. It refuses a message that was
// handled, that another receiver has, or of which the store can prove neither that it is
// known nor that it is unused.
func (x *redrive) judge(ctx context.Context, m *driver.Delivery, opened *sealing.Opened, now time.Time) (refused string, err error) {
	q := x.q
	if q.store == nil {
		x.vouched(ctx, m, opened)
		return "", nil
	}
	e := &opened.Envelope
	looks, err := q.store.Look(ctx, q.group, []replay.Query{{
		ID:       replay.Identity{Sender: e.Sender, Stream: e.Stream, Sequence: e.Sequence},
		SealedAt: intake.Times{EncryptedAt: opened.EncryptedAt(), NotBefore: opened.NotBefore()}.SealedAt(),
	}})
	switch {
	case err == nil && len(looks) != 1:
		err = errFewResults
	case err == nil:
		err = looks[0].Err
	}
	if err != nil {
		return "", fmt.Errorf("%w: %w", queue.ErrReplayStore, err)
	}
	l := &looks[0]
	switch {
	case l.State == replay.StateConsumed:
		return driver.ReasonNonceReused, nil
	case l.Resealable(now):
		return "", nil
	case l.State == replay.StateClaimed:
		return driver.ReasonNonceBusy, nil
	case !x.o.AcceptReplayRisk:
		return RefusedUnknown, nil
	}
	x.vouched(ctx, m, opened)
	return "", nil
}

// vouched logs a message that is resealed because the caller accepts the risk.
func (x *redrive) vouched(ctx context.Context, m *driver.Delivery, opened *sealing.Opened) {
	if x.o.DryRun {
		return
	}
	const maxID = queue.MaxIDBytes // the ID is not bounded by the broker
	x.q.log.LogAttrs(ctx, slog.LevelWarn, "Dead letter resealed although nothing tells whether it was handled before: replay risk accepted",
		slog.String("queue", x.q.name), slog.String("message_id", m.ID[:min(len(m.ID), maxID)]), slog.String("key_id", string(opened.KeyID())))
}
