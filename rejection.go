package queue

import (
	"bytes"
	"context"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/intake"
	"github.com/queue-runtime/queue/internal/sealing"
)

// This file examines a message: whether it is delivered or rejected, and why. What then
// becomes of it is for intake.Decide. Its invariant: what is rejected has no body.

// examine runs the first steps of the pipeline of DESIGN.md, "Receiving", on one message: open
// and freshness. It sets the finding, and for a rejected message why. Replays are found behind
// it, by claimAll in claim.go, for a batch at once.
func (r *Receiver) examine(ctx context.Context, t *taken) {
	d := t.d
	var opened sealing.Opened
	f := r.unseal(ctx, &d.Received, d.raw, &opened)
	switch {
	case f != nil:
		t.refuse(publicError(f))
		return
	case !d.Encrypted && r.cfg.PlaintextPolicy == Reject:
		d.Body = nil
		t.refuse(ErrUnencryptedMessage)
		return
	case !d.Encrypted:
		if r.cfg.Enabled {
			d.Body = bytes.Clone(d.Body) // describe binds a failure to what raw holds, not to a handler's changes
		}
		t.finding = intake.Good
		return
	}
	if t.session != nil && d.SessionID != t.session.id {
		// Another session's message: its handler would act on it with this one's state.
		d.Body = nil
		t.refuse(ErrAuthenticationFailed)
		return
	}
	times := intake.Times{EncryptedAt: d.EncryptedAt, NotBefore: d.NotBefore, ExpiresAt: opened.ExpiresAt(), ResealedAt: opened.ResealedAt()}
	now := time.Now()
	j := r.freshness.Judge(times, now)
	if r.store != nil {
		r.identify(t, &opened.Envelope, times, j.FreshUntil, now)
	}
	switch j.Reason {
	case driver.ReasonMessageFromFuture:
		t.wait = j.Wait
		t.refuse(ErrMessageFromFuture)
	case driver.ReasonMessageExpired:
		e := &ExpiredError{EncryptedAt: d.EncryptedAt, MaxAge: j.MaxAge}
		if j.MaxAge == 0 {
			e.ExpiresAt = times.ExpiresAt
		}
		t.refuse(e)
	default:
		t.finding = intake.Good
	}
}

// checkDeliveries refuses a message that was delivered more often than it may be: one that
// ends its process, or always outlasts its lock, returns no error that could be counted.
// It comes after the claim, so that a message which was handled before, or which another
// receiver handles now, is not dead-lettered. A broker without dead letters delivers it.
func (r *Receiver) checkDeliveries(t *taken) {
	if t.finding == intake.Good && t.d.Count > r.options.MaxDeliveries && r.caps.DeadLetter != driver.None {
		t.refuse(ErrMaxDeliveries)
	}
}

// unseal opens raw into d and opened: everything that does not depend on the time or on
// other messages. A message that is not sealed comes back with Encrypted false.
func (e *endpoint) unseal(ctx context.Context, d *Received, raw *driver.Delivery, opened *sealing.Opened) *sealing.Failure {
	f := e.opener.Open(ctx, raw, opened)
	d.KeyID = opened.KeyID()
	if f != nil {
		return f
	}
	d.Body, d.Attributes, d.Unauthenticated = opened.Body, opened.Attributes, opened.Added
	if opened.Sealed {
		d.Encrypted, d.Origin, d.Sender = true, opened.Envelope.Origin, opened.Envelope.Sender
		d.EncryptedAt, d.NotBefore, d.TTL = opened.EncryptedAt(), opened.NotBefore(), opened.TTL()
	}
	return nil
}

// fill copies the fields that come from the broker, none of which is authentic yet.
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
