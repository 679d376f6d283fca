package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/internal/intake"
	"github.com/queue-runtime/queue/internal/sealing"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/observe"
	"github.com/queue-runtime/queue/replay"
)

// This file claims received messages in the replay store. Its invariant: a message that
// is delivered under TrackReplays has a claim of its own, and a message about which the
// store does not answer is not delivered.

// claim is what a delivery holds in the replay store; the zero value is nothing.
type claim struct {
	id    replay.Identity
	token replay.Token
}

func (c claim) none() bool { return c.token == replay.Token{} }

// ends is what to tell the store when the claim ends.
func (c claim) ends(kind replay.FinishKind) replay.Finish {
	return replay.Finish{ID: c.id, Token: c.token, Kind: kind}
}

// refuse notes that the message is rejected.
func (t *taken) refuse(err error) { t.finding, t.err = intake.Rejected, err }

// setClaim notes that the store may hold the claim of the message.
func (t *taken) setClaim() { t.d.claim = claim{id: t.request.ID, token: t.request.Token} }

// identify prepares the claim of an authentic message.
func (r *Receiver) identify(t *taken, e *envelope.EncryptedMessage, times intake.Times, freshUntil, now time.Time) {
	t.request = replay.Request{
		ID:            replay.Identity{Sender: e.Sender, Stream: e.Stream, Sequence: e.Sequence},
		Token:         replay.NewToken(),
		Resealed:      e.ResealedAt > 0,
		SealedAt:      times.SealedAt(),
		FreshUntil:    freshUntil,
		Now:           now,
		RetryWindow:   r.cfg.RetryWindow,
		Lease:         lease(t.d.raw.LockedUntil, now),
		MaxMessageAge: r.cfg.MaxMessageAge,
		MaxClockSkew:  r.cfg.MaxClockSkew,
		Settled:       e.Settled,
		Previous:      e.Previous,
	}
	copy(t.request.Tag[:], e.Tag[:])
	for _, v := range e.Void {
		t.request.Void = append(t.request.Void, replay.Range(v))
	}
}

// claimAll claims the authentic messages of a batch with one call, for as long as their
// locks live. It enters those that were rejected after authentication as seen; the store does
// that itself for those that it refuses.
func (r *Receiver) claimAll(ctx context.Context, all []taken) {
	r.noteRejected(ctx, all)
	var requests []replay.Request
	var of []*taken
	for i := range all {
		if t := &all[i]; t.finding == intake.Good && t.d.Encrypted {
			requests, of = append(requests, t.request), append(of, t)
		}
	}
	if len(requests) > 0 {
		before := r.watch.seen()
		claims, err := r.begin(ctx, requests, of)
		for i, t := range of {
			if i >= len(claims) || err != nil {
				t.setClaim() // perhaps: then it is released with the message
			}
			switch {
			case err != nil && ctx.Err() != nil:
				t.refuse(ctx.Err())
			case err != nil:
				t.refuse(fmt.Errorf("%w: %w", ErrReplayStore, err))
			case i >= len(claims):
				t.refuse(fmt.Errorf("%w: it returned too few results", ErrReplayStore))
			default:
				r.claimed(t, before, &claims[i])
			}
		}
	}
}

// begin makes one call to the replay store, which has to answer while a lock of the
// messages lives: a claim that came later would be worth nothing. One lock that ends earlier
// than the others, or has ended, says nothing about the store.
func (r *Receiver) begin(ctx context.Context, requests []replay.Request, of []*taken) ([]replay.Claim, error) {
	ctx, cancel := context.WithTimeout(ctx, beginLimit(of, time.Now()))
	defer cancel()
	return r.store.Begin(ctx, r.options.Group, requests)
}

// beginLimit is how long the store may take to claim messages: until the last of their
// locks ends, for storeTimeout at most. Messages whose locks have ended do not count: the
// clock of the broker that says so may be another than this one's.
func beginLimit(of []*taken, now time.Time) time.Duration {
	limit := time.Duration(0)
	for _, t := range of {
		until := t.d.raw.LockedUntil
		if until.IsZero() {
			return storeTimeout
		}
		limit = max(limit, until.Sub(now))
	}
	if limit <= 0 {
		return storeTimeout
	}
	return min(limit, storeTimeout)
}

// claimed takes in the store's answer for one message. before was seen before the call.
func (r *Receiver) claimed(t *taken, before replay.Stamp, c *replay.Claim) {
	switch err := c.Err; {
	case err == nil:
		t.setClaim()
		if lost := r.watch.see(before, c.Stamp); lost != nil {
			t.refuse(lost)
			return
		}
		t.d.Gap = c.Gap
		t.d.claimedUntil = claimEnd(t.d.raw.LockedUntil, t.request.Now)
	case errors.Is(err, replay.ErrDuplicate):
		t.finding = intake.Duplicate
	case errors.Is(err, replay.ErrNotFresh):
		t.refuse(&ExpiredError{EncryptedAt: t.d.EncryptedAt, MaxAge: r.cfg.MaxMessageAge})
	case errors.Is(err, replay.ErrBusy):
		t.wait = max(c.BusyUntil.Sub(t.request.Now), minBusy)
		t.refuse(err)
	case errors.Is(err, replay.ErrReused), errors.Is(err, replay.ErrCollision):
		t.refuse(err)
	case errors.Is(err, replay.ErrQuota):
		t.wait = quotaDelay
		if !r.caps.ReleaseUncounted {
			// Each costs a delivery: ten last for some four hours.
			t.wait = min(quotaDelay<<min(max(t.d.Count-1, 0), 8), maxQuotaDelay)
		}
		t.refuse(err)
	default: // ErrFull, or an answer that no store may give
		t.refuse(fmt.Errorf("%w: %w", ErrReplayStore, err))
	}
}

// noteRejected tells the store of messages that were rejected after authentication and before
// their claim, so that they do not count as missing. That is not worth stopping for: without an answer
// they are reported, and an operator finds them among the dead letters.
func (r *Receiver) noteRejected(ctx context.Context, all []taken) {
	var notes []replay.Note
	for i := range all {
		t := &all[i]
		if t.finding != intake.Rejected || !t.d.Encrypted || !errors.Is(t.err, ErrMessageExpired) {
			continue
		}
		id := t.request.ID
		notes = append(notes, replay.Note{Sender: id.Sender, Stream: id.Stream, Range: replay.Range{First: id.Sequence, Last: id.Sequence}, Kind: replay.NoteAccepted})
	}
	if len(notes) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, noteTimeout)
	defer cancel()
	_, _ = r.store.Note(ctx, r.options.Group, notes)
}

const (
	// storeTimeout bounds a claim: a store that hangs is one that is away. It leaves half
	// of a usual lock of 30 s to the handler.
	storeTimeout = 15 * time.Second
	// releaseTimeout bounds the release of claims whose messages go back. A claim that stays
	// ends with its lease; a message whose lock runs out has spent a delivery.
	releaseTimeout = 5 * time.Second
	// noteTimeout bounds a note, which the good messages of the batch wait for.
	noteTimeout = 2 * time.Second
	// defaultLease is the life of a claim if the broker's lock has no end in time. It is
	// renewed like a lock, and bounds how long a crash blocks a message.
	defaultLease = time.Minute
	// maxLease is the longest lock of a broker that there is a driver for. A broker that tells
	// of a longer one would have a message whose receiver crashed count as seen for as long.
	maxLease = 12 * time.Hour
	// minLease is for a lock that ends at once: a claim lives for some time.
	minLease = time.Millisecond
	// minBusy keeps a message whose other claim is about to end from coming round at once.
	minBusy = 10 * time.Millisecond
	// quotaDelay is how long the messages of a sender at its quota wait: its records are freed
	// as its messages are completed.
	quotaDelay = 30 * time.Second
	// maxQuotaDelay is the longest such delay on a broker that counts deliveries.
	maxQuotaDelay = time.Hour
)

// lease is how long a claim lives: as long as the lock, so that a crash costs one
// delivery, and for maxLease at most.
func lease(lockedUntil, now time.Time) time.Duration {
	if lockedUntil.IsZero() {
		return defaultLease
	}
	return min(max(lockedUntil.Sub(now), minLease), maxLease)
}

// claimEnd is when a claim ends before its lock; zero if it does not.
func claimEnd(lockedUntil, now time.Time) time.Time {
	if !lockedUntil.IsZero() && lockedUntil.Sub(now) <= maxLease {
		return time.Time{}
	}
	return now.Add(lease(lockedUntil, now))
}

// askStore finds out, without a message, whether the replay store answers again and has
// room, and, if it lost its memory, whether an operator has accepted that. The probe
// writes, so that it notices a store that is read-only.
func (r *Receiver) askStore(ctx context.Context) intake.Answer {
	if r.watch.lost() != nil {
		h, err := r.store.History(ctx)
		if err != nil || r.watch.accept(&h) != nil {
			return intake.Away
		}
	}
	if r.store.Probe(ctx, r.options.Group) != nil {
		return intake.Away
	}
	return intake.Back
}

// storeError sorts an error of the replay store on a claim that was held.
func (r *Receiver) storeError(ctx context.Context, err error) error {
	switch {
	case err == nil, errors.Is(err, replay.ErrHandled):
		return nil
	case errors.Is(err, replay.ErrClaimLost):
		return driver.Errorf(driver.LockLost, "%w", err)
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w", ErrReplayStore, err)
}

// renewClaims extends the claims of deliveries whose locks were renewed, with as few calls
// as the store's limit allows.
func (r *Receiver) renewClaims(ctx context.Context, renewals []renewal) {
	var of []*renewal
	for i := range renewals {
		if x := &renewals[i]; x.Err == nil && !x.d.claim.none() {
			of = append(of, x)
		}
	}
	for part := range slices.Chunk(of, replay.MaxBatch) {
		r.renewSome(ctx, part)
	}
}

// renewSome extends at most replay.MaxBatch claims with one call.
func (r *Receiver) renewSome(ctx context.Context, of []*renewal) {
	now := time.Now()
	leases := make([]replay.Lease, len(of))
	for i, x := range of {
		leases[i] = replay.Lease{ID: x.d.claim.id, Token: x.d.claim.token, Lease: lease(x.LockedUntil, now)}
	}
	callCtx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	renewed, err := r.store.Renew(callCtx, r.options.Group, leases)
	for i, x := range of {
		switch {
		case err != nil:
			x.Err = r.storeError(ctx, err)
		case i >= len(renewed):
			x.Err = fmt.Errorf("%w: it returned too few results", ErrReplayStore)
		default:
			x.Err = r.storeError(ctx, renewed[i].Err)
		}
	}
}

// askAgain finds out, without a message, whether the dependency that failed is back.
func (r *Receiver) askAgain(ctx context.Context, o intake.Outage) intake.Answer {
	if o.Reason == driver.ReasonReplayStore {
		return r.askStore(ctx)
	}
	if r.opener.Valid == nil {
		return intake.NeedsMessage // the keys are a CryptoProvider's own
	}
	if r.keyChanged() != nil {
		return intake.Away
	}
	return r.askKeys(ctx, o.KeyID)
}

// askKeys asks the key provider again for the key that it could not give, and what opens
// messages with it. A CryptoProvider of the application's own may be away although its keys
// are not: only a message can tell.
func (r *Receiver) askKeys(ctx context.Context, id keys.ID) intake.Answer {
	if _, err := r.opener.Valid.ValidKeyIDs(ctx); err != nil || !hasAnswer(ctx, r.opener.Valid, id) {
		return intake.Away
	}
	c, ok := r.opener.Crypto.(*sealing.Cipher)
	switch {
	case !ok:
		return intake.NeedsMessage
	case c.Keys() != keys.Provider(r.opener.Valid) && !hasAnswer(ctx, c.Keys(), id):
		return intake.Away // an AESGCM over a provider of its own
	}
	return intake.Back
}

// hasAnswer reports whether the provider answers for a key: also that it does not exist.
func hasAnswer(ctx context.Context, p keys.Provider, id keys.ID) bool {
	_, err := p.GetKey(ctx, id)
	return err == nil || errors.Is(err, keys.ErrNotFound)
}

// reportGap tells that a message came before the one that its sender sent before it in
// the same session.
func (r *Receiver) reportGap(ctx context.Context, d *Delivery) {
	if d.Gap {
		r.obs.Gap(ctx, r.obs.Source, observe.Gap{Sender: d.Sender})
	}
}
