package deadletter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/intake"
	"github.com/queue-runtime/queue/internal/sealing"
	"github.com/queue-runtime/queue/replay"
)

// This file decides whether a letter may be sealed anew. Its invariant: what was handled
// is never made new, and neither is what cannot be told apart from it, unless the caller
// vouches for it.

// redriveLease bounds how long a redrive that died between its claim and its mark blocks
// the next one.
const redriveLease = time.Minute

// redriveMark begins the BrokerID of a redrive's own records in the replay store, and
// its DedupIDs.
const redriveMark = "redrive:"

// reseal opens m and makes back the message sealed anew.
func (x *redrive) reseal(ctx context.Context, m *driver.Delivery, back *driver.Message) (refused string, err error) {
	q := x.q
	opened, f := q.opener.Open(ctx, m)
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case f != nil && f.Reason == driver.ReasonKeyProvider:
		return "", f.Err
	case f != nil:
		return f.Reason, nil
	case opened.Envelope == nil:
		return RefusedPlaintext, nil
	}
	now := time.Now()
	if x.early(&opened, now) {
		return driver.ReasonMessageFromFuture, nil
	}
	ttl := x.o.TTL
	if end := opened.ExpiresAt(); ttl == 0 && !end.IsZero() {
		if ttl = end.Sub(now); ttl <= 0 {
			return RefusedExpired, nil
		}
	}
	if refused, err := x.mark(ctx, m, &opened, now); refused != "" || err != nil {
		return refused, err
	}
	if x.o.DryRun {
		return "", nil
	}
	back.Attributes = opened.Attributes // without what was added on the way
	back.Body = opened.Body
	back.TTL = ttl
	id, f := q.sealer.CurrentKey(ctx)
	if f == nil {
		n := q.sealer.Numbers().Next(id, back)
		_, f = q.sealer.Seal(ctx, &n, back)
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

// mark consumes the old envelope before the new one is sent, so that the old can never
// be handled beside it. It refuses what was handled before, and what the store does not
// know.
func (x *redrive) mark(ctx context.Context, m *driver.Delivery, opened *sealing.Opened, now time.Time) (refused string, err error) {
	q := x.q
	if q.store == nil {
		if !x.o.DryRun {
			x.vouched(ctx, m, opened)
		}
		return "", nil
	}
	from := intake.Times{EncryptedAt: opened.EncryptedAt(), NotBefore: opened.NotBefore()}.From()
	request := replay.Request{
		Group:          q.group,
		ID:             replay.ID(opened.Envelope.Sender + "|" + string(opened.Envelope.Stream[:]) + strconv.FormatUint(opened.Envelope.Sequence, 10)),
		BrokerID:       redriveMark + m.BrokerID,
		Lease:          redriveLease,
		FreshUntil:     from.Add(q.cfg.MaxMessageAge + q.cfg.MaxClockSkew),
		Now:            now,
		RetryWindow:    q.cfg.RetryWindow,
		RetainClaimed:  now.Add(max(q.cfg.RetryWindow, q.cfg.NonceTTL)),
		RetainConsumed: now.Add(q.cfg.NonceTTL),
	}
	c, err := q.store.Begin(ctx, request)
	if errors.Is(err, replay.ErrNotFresh) {
		if !x.o.AcceptReplayRisk {
			return RefusedUnknown, nil
		}
		if x.o.DryRun {
			return "", nil // a claim would make the old envelope known
		}
		x.vouched(ctx, m, opened)
		c, err = q.store.Begin(ctx, vouch(request))
	}
	switch {
	case errors.Is(err, replay.ErrReused), errors.Is(err, replay.ErrBusy):
		return queue.ReasonOf(err), nil
	case err == nil && c.Duplicate:
		return "", nil // an earlier redrive marked it, and may not have sent it
	case err == nil && x.o.DryRun:
		err = q.store.Release(ctx, q.group, request.ID, c.Token)
	case err == nil:
		err = q.store.Consume(ctx, q.group, request.ID, c.Token)
	}
	if err != nil {
		return "", fmt.Errorf("%w: %w", queue.ErrReplayStore, err)
	}
	return "", nil
}

// vouch is a request that no age makes stale, for a message of which the caller knows
// that it was not handled. Its record goes soon if the mark fails now: the old envelope
// must not stay known.
func vouch(r replay.Request) replay.Request {
	r.FreshUntil = r.Now
	r.RetryWindow = maxInterval
	r.RetainClaimed = r.Now.Add(2 * redriveLease)
	return r
}

func (x *redrive) vouched(ctx context.Context, m *driver.Delivery, opened *sealing.Opened) {
	const maxID = queue.MaxIDBytes // the ID is not bounded by the broker
	x.q.log.LogAttrs(ctx, slog.LevelWarn, "Dead letter resealed although nothing tells whether it was handled before: replay risk accepted",
		slog.String("queue", x.q.name), slog.String("message_id", m.ID[:min(len(m.ID), maxID)]), slog.String("key_id", string(opened.KeyID())))
}
