package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/replay"
)

// accept puts a batch through the pipeline: each message on its own up to its
// claim, then in order what becomes of them. It returns the good ones, the
// rejected ones and, inOrder, the one that stopped it: whatever came behind that
// is given back unseen.
func (r *Receiver) accept(ctx context.Context, src driver.Source, raw []*driver.Delivery, probe, inOrder bool) (good []*Delivery, rejected []*RejectedError, blocked *RejectedError) {
	if len(raw) == 0 {
		return nil, nil, nil
	}
	bytes := 0
	for _, d := range raw {
		bytes += len(d.Body)
	}
	found := make([]verdict, len(raw))
	parallel(len(raw), bytes, func(i int) {
		v := &found[i]
		v.d = &Delivery{r: r, src: src, raw: raw[i], lockedUntil: raw[i].LockedUntil}
		v.d.fill(r.queue, raw[i])
		r.examine(ctx, v)
	})
	good = make([]*Delivery, 0, len(raw))
	var settle []driver.Settlement
	var of []*RejectedError // whose settlement it is; nil where nobody is told
	var unclaim []*Delivery
	for i := range found {
		v := &found[i]
		if blocked != nil || v.err != nil && ctx.Err() != nil && errors.Is(v.err, ctx.Err()) {
			// Nothing is held against it.
			unclaim = append(unclaim, v.d)
			settle, of = append(settle, driver.Settlement{Delivery: v.d.raw, Kind: driver.Abandon}), append(of, nil)
			continue
		}
		if v.authentic {
			r.health.opened(ctx)
		}
		switch {
		case v.err != nil:
			e, s := r.judge(ctx, v, probe)
			rejected = append(rejected, e)
			if s.Kind != 0 {
				settle, of = append(settle, s), append(of, e)
			}
			if inOrder && e.Disposition == Abandoned {
				blocked = e
			}
		case v.duplicate:
			settle, of = append(settle, driver.Settlement{Delivery: v.d.raw, Kind: driver.Complete}), append(of, r.rejection(v, Completed))
		default:
			if probe {
				r.health.recovered(ctx)
			}
			r.received(ctx, v.d)
			good = append(good, v.d)
		}
	}
	if probe {
		r.health.settled()
	}
	if len(settle) > 0 {
		// In any case: nobody must wait for these because the caller went away.
		sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
		for _, d := range unclaim {
			_ = d.settleClaim(sctx, driver.Abandon)
		}
		errs := src.Settle(sctx, settle)
		cancel()
		for i, e := range of {
			if e != nil && i < len(errs) {
				e.SettleErr = errs[i]
			}
		}
	}
	for _, e := range of {
		if e != nil && e.Disposition == Completed {
			r.event(ctx, Event{Kind: EventDuplicate, KeyID: e.KeyID, Err: e.SettleErr})
			r.log.LogAttrs(ctx, slog.LevelInfo, "Message was handled before and only its completion was lost: completed",
				slog.String("queue", r.queue), slog.String("message_id", clip(e.MessageID)))
		}
	}
	for _, e := range rejected {
		r.report(ctx, e)
	}
	return good, rejected, blocked
}

// fill copies what the broker says of a message, none of it authentic yet.
func (d *Received) fill(queue string, raw *driver.Delivery) {
	d.Message = Message{
		ID:            raw.ID,
		SessionID:     raw.SessionID,
		CorrelationID: raw.CorrelationID,
		ContentType:   raw.ContentType,
		Attributes:    raw.Attributes,
	}
	d.Queue = queue
	d.BrokerID = raw.BrokerID
	d.Count = raw.Count
	d.EnqueuedAt = raw.EnqueuedAt
	d.trace = raw.Trace
}

// examine runs the pipeline of DESIGN.md, "Receiving", on one message: marker,
// parse, key allowed, key loaded, authentication, origin, freshness and claim.
// Nothing of the message is believed, cached or counted by key before it is
// authenticated.
func (r *Receiver) examine(ctx context.Context, v *verdict) {
	d := v.d
	m, err := r.unseal(ctx, &d.Received, d.raw)
	if err != nil {
		v.err = err
		return
	}
	if !d.Encrypted {
		if r.cfg.PlaintextPolicy == Reject {
			v.err = ErrUnencryptedMessage
			d.Body = nil
		}
		return
	}
	v.authentic = true
	freshUntil, err := r.freshness(v, &m.Header)
	if err != nil {
		v.err = err
		return
	}
	if r.nonces != nil {
		v.err = r.claim(ctx, v, m, freshUntil)
	}
}

// unseal opens raw into d, up to and including the origin: everything that does
// not depend on the time or on other messages. A message that is not sealed
// comes back with Encrypted false.
func (e *endpoint) unseal(ctx context.Context, d *Received, raw *driver.Delivery) (*envelope.EncryptedMessage, error) {
	if raw.Undecodable {
		return nil, fmt.Errorf("%w: the transport's encoding is broken", ErrInvalidEnvelope)
	}
	if !envelope.IsSealed(raw.Body) {
		if raw.Sealed {
			return nil, fmt.Errorf("%w: the transport says sealed and the marker is missing", ErrInvalidEnvelope)
		}
		d.Body = raw.Body
		return nil, nil //nolint:nilnil // not sealed is an answer
	}
	m, err := envelope.Parse(raw.Body)
	if err != nil {
		return nil, err
	}
	d.KeyID = keys.ID(m.KeyID)
	if e.crypto == nil {
		return &m, &KeyNotFoundError{KeyID: d.KeyID}
	}
	if e.gate != nil {
		ok, err := e.gate.allowed(ctx, d.KeyID)
		if err != nil {
			return &m, err
		}
		if !ok {
			return &m, &KeyNotFoundError{KeyID: d.KeyID}
		}
	}
	begin := e.clock()
	body, err := e.decrypt(ctx, &m, raw)
	if e.o != nil {
		e.event(ctx, Event{Kind: EventOpened, Duration: time.Since(begin), KeyID: d.KeyID, Bytes: len(body), Err: err})
	}
	if err != nil {
		return &m, err
	}
	if m.Origin != e.queue && !slices.Contains(e.cfg.AcceptedOrigins, m.Origin) {
		return &m, ErrAuthenticationFailed
	}
	d.Body = body
	d.Encrypted = true
	d.Origin = m.Origin
	d.EncryptedAt = time.UnixMilli(m.EncryptedAt)
	if m.NotBefore > 0 {
		d.NotBefore = time.UnixMilli(m.NotBefore)
	}
	if m.ExpiresAt > 0 {
		d.TTL = time.UnixMilli(m.ExpiresAt).Sub(time.UnixMilli(max(m.EncryptedAt, m.NotBefore)))
	}
	d.Attributes, d.Unauthenticated = split(raw.Attributes, m.Bound)
	return &m, nil
}

func (e *endpoint) decrypt(ctx context.Context, m *envelope.EncryptedMessage, raw *driver.Delivery) ([]byte, error) {
	ctxData, err := envelope.AppendContext(nil, &envelope.Context{
		MessageID:     raw.ID,
		SessionID:     raw.SessionID,
		ContentType:   raw.ContentType,
		CorrelationID: raw.CorrelationID,
		Attributes:    raw.Attributes,
	}, m.Bound)
	if err != nil {
		// A bound attribute is missing, or a field cannot have been sealed so.
		return nil, ErrAuthenticationFailed
	}
	body, err := e.crypto.Decrypt(ctx, *m, ctxData)
	switch {
	case err == nil:
		return body, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, ErrAuthenticationFailed), errors.Is(err, ErrKeyNotFound), errors.Is(err, ErrKeyProvider),
		errors.Is(err, ErrUnsupportedVersion), errors.Is(err, ErrInvalidEnvelope):
		return nil, err
	}
	// Whatever a provider cannot say of a message is no reason to condemn it.
	return nil, providerError(ctx, err)
}

// split parts the attributes that the sender bound from those that were added.
func split(all map[string]string, bound []string) (authentic, added map[string]string) {
	if len(bound) == len(all) {
		return all, nil // every bound name is there: the envelope opened
	}
	authentic = make(map[string]string, len(bound))
	for _, name := range bound {
		authentic[name] = all[name]
	}
	added = make(map[string]string, len(all)-len(bound))
	for name, value := range all {
		if _, ok := authentic[name]; !ok {
			added[name] = value
		}
	}
	return authentic, added
}

// freshness judges the times of an authentic header by this receiver's clock. It
// returns until when the message counts as fresh.
func (r *Receiver) freshness(v *verdict, h *envelope.Header) (time.Time, error) {
	now := time.Now()
	skew := r.cfg.MaxClockSkew
	sealed := time.UnixMilli(h.EncryptedAt)
	from := sealed
	if nb := time.UnixMilli(h.NotBefore); h.NotBefore > 0 {
		if now.Before(nb.Add(-skew)) {
			v.dueAt = nb
			return time.Time{}, ErrMessageFromFuture
		}
		if nb.After(from) {
			from = nb
		}
	}
	if h.ExpiresAt > 0 {
		if end := time.UnixMilli(h.ExpiresAt); now.After(end.Add(skew)) {
			return time.Time{}, &ExpiredError{EncryptedAt: sealed, ExpiresAt: end}
		}
	}
	if r.cfg.InsecureSkipFreshness {
		return time.Time{}, nil
	}
	if now.Before(sealed.Add(-skew)) {
		v.dueAt = sealed.Add(-skew)
		return time.Time{}, ErrMessageFromFuture
	}
	until := from.Add(r.cfg.MaxMessageAge + skew)
	if r.nonces == nil && now.After(until) {
		return until, &ExpiredError{EncryptedAt: sealed, MaxAge: r.cfg.MaxMessageAge}
	}
	return until, nil // with nonces, the claim decides: a retry may be older
}

// claim takes the message's nonce for as long as its lock lives.
func (r *Receiver) claim(ctx context.Context, v *verdict, m *envelope.EncryptedMessage, freshUntil time.Time) error {
	now := time.Now()
	id := replayID(m)
	c, err := r.nonces.Begin(ctx, replay.Request{
		Group:          r.options.Group,
		ID:             id,
		BrokerID:       recordedID(v.d.BrokerID),
		Lease:          r.lease(v.d.raw.LockedUntil, now),
		FreshUntil:     freshUntil,
		Now:            now,
		RetryWindow:    r.cfg.RetryWindow,
		RetainClaimed:  now.Add(max(r.cfg.RetryWindow, r.cfg.NonceTTL)),
		RetainConsumed: now.Add(r.cfg.NonceTTL),
	})
	switch {
	case err == nil && c.Duplicate:
		v.duplicate = true
		return nil
	case err == nil && c.Token == "":
		// It could never be marked as handled.
		return fmt.Errorf("%w: it granted a claim without a token", ErrNonceStore)
	case err == nil:
		v.d.claim = claim{id: id, token: c.Token}
		if v.d.raw.LockedUntil.IsZero() {
			v.d.claimedUntil = now.Add(defaultLease)
		}
		return nil
	case errors.Is(err, replay.ErrNotFresh):
		return &ExpiredError{EncryptedAt: time.UnixMilli(m.EncryptedAt), MaxAge: r.cfg.MaxMessageAge}
	case errors.Is(err, replay.ErrReused), errors.Is(err, replay.ErrBusy):
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w", ErrNonceStore, err)
}

// replayID names an envelope by what no two sealings share. It goes when the replay
// store knows messages by sender, stream and sequence.
func replayID(m *envelope.EncryptedMessage) replay.ID {
	return replay.ID(m.KeyID + string(m.Salt[:]) + string(m.Nonce[:]))
}

// defaultLease is the life of a claim where the broker's lock has no end in
// time. It is renewed like a lock, and bounds how long a crash blocks a message.
const defaultLease = time.Minute

func (r *Receiver) lease(lockedUntil, now time.Time) time.Duration {
	if lockedUntil.IsZero() {
		return defaultLease
	}
	return max(lockedUntil.Sub(now), time.Second)
}
