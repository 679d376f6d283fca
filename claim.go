package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/internal/intake"
	"github.com/queue-runtime/queue/replay"
)

// refuse notes that the message is rejected.
func (t *taken) refuse(err error) { t.finding, t.err = intake.Rejected, err }

// claim takes the message in the replay store for as long as its lock lives.
func (r *Receiver) claim(ctx context.Context, t *taken, m *envelope.EncryptedMessage, freshUntil time.Time) {
	now := time.Now()
	id := replay.ID(m.Sender + "|" + string(m.Stream[:]) + strconv.FormatUint(m.Sequence, 10))
	c, err := r.nonces.Begin(ctx, replay.Request{
		Group:          r.options.Group,
		ID:             id,
		BrokerID:       recordedID(t.d.BrokerID),
		Lease:          r.lease(t.d.raw.LockedUntil, now),
		FreshUntil:     freshUntil,
		Now:            now,
		RetryWindow:    r.cfg.RetryWindow,
		RetainClaimed:  now.Add(max(r.cfg.RetryWindow, r.cfg.NonceTTL)),
		RetainConsumed: now.Add(r.cfg.NonceTTL),
	})
	switch {
	case err == nil && c.Duplicate:
		t.finding = intake.Duplicate
	case err == nil && c.Token == "":
		// It could never be marked as handled.
		t.refuse(fmt.Errorf("%w: it granted a claim without a token", ErrReplayStore))
	case err == nil:
		t.d.claim = claim{id: id, token: c.Token}
		if t.d.raw.LockedUntil.IsZero() {
			t.d.claimedUntil = now.Add(defaultLease)
		}
	case errors.Is(err, replay.ErrNotFresh):
		t.refuse(&ExpiredError{EncryptedAt: t.d.EncryptedAt, MaxAge: r.cfg.MaxMessageAge})
	case errors.Is(err, replay.ErrBusy):
		t.wait = r.lease(t.d.raw.LockedUntil, now)
		t.refuse(err)
	case errors.Is(err, replay.ErrReused):
		t.refuse(err)
	case ctx.Err() != nil:
		t.refuse(ctx.Err())
	default:
		t.refuse(fmt.Errorf("%w: %w", ErrReplayStore, err))
	}
}

// defaultLease is the life of a claim if the broker's lock has no end in time. It is
// renewed like a lock, and bounds how long a crash blocks a message.
const defaultLease = time.Minute

func (r *Receiver) lease(lockedUntil, now time.Time) time.Duration {
	if lockedUntil.IsZero() {
		return defaultLease
	}
	return max(lockedUntil.Sub(now), time.Second)
}

// askStore finds out, at no message's cost, whether a replay store answers again.
func (r *Receiver) askStore(ctx context.Context, o intake.Outage) intake.Answer {
	if errors.Is(o.Cause, replay.ErrFull) {
		return intake.NeedsMessage
	}
	// A claim that nobody holds: a store that answers says so.
	err := r.nonces.Renew(ctx, r.options.Group, "probe", "probe", time.Second)
	if errors.Is(err, replay.ErrClaimLost) {
		return intake.Back
	}
	return intake.Away
}

// storeError sorts an error of the replay store on a claim that was held.
func (r *Receiver) storeError(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, replay.ErrClaimLost):
		return driver.Errorf(driver.LockLost, "%w", err)
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w", ErrReplayStore, err)
}

// redriveMark begins the BrokerID of a redrive's own records in the replay store.
const redriveMark = "redrive:"

// recordedID is the BrokerID under which a receiver's claim is recorded, never one of a
// redrive: a broker that names a message so would have the next redrive take what a
// handler completed for its own mark, and seal it anew.
func recordedID(brokerID string) string {
	if strings.HasPrefix(brokerID, redriveMark) {
		return "delivery:" + brokerID
	}
	return brokerID
}
