package queue

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/observe"
	"github.com/queue-runtime/queue/replay"
)

// Delivery is a message that passed the pipeline, under a lock until it is settled by
// Complete, Abandon, Release or DeadLetter, once, from any goroutine. Complete is called
// Ack elsewhere, and Abandon Nack. Its exported fields are the receiver's to read and
// change.
//
// Once its Receiver, Session or Client is closed, it is settled and renewed no more: the
// calls fail with ErrClosed, and the message is delivered again.
type Delivery struct {
	Received

	r       *Receiver
	session *Session // nil means it was received from the queue itself
	src     driver.Source
	raw     *driver.Delivery
	claim   claim

	mu           sync.Mutex // guards what follows; never held across a call
	lockedUntil  time.Time
	claimedUntil time.Time // when the claim ends, if that is before the lock; zero otherwise
	// renewCall holds one token, for the renewal under way. It is nil before the first: most
	// messages are handled without one.
	renewCall chan struct{}
	settling  bool              // a call of settle is under way
	done      bool              // one has settled the message
	kind      driver.SettleKind // how, once done
}

// Reason says why an application dead-letters a message. Code and Description are stored in
// cleartext beside the dead letter: a code and a fixed text, never payload.
type Reason struct {
	// Code is 1 to 64 bytes of [a-z0-9_].
	Code string

	// Description is at most 512 bytes.
	Description string

	// Detail is for the operator who looks at the dead letter (deadletter.Letter, qrt dlq
	// show): the text of an error, a stack. It is stored sealed, under the key that is
	// current, and opens beside this message only. Of a longer one the first 1,900 bytes
	// are kept, or some more. It is dropped, and the message dead-lettered all the same, if
	// encryption is not enabled, if the keys are not at hand or are a sender's, or if the
	// CryptoProvider is not AESGCM.
	Detail string
}

func (r Reason) validate() error {
	if r.Code == "" || len(r.Code) > 64 {
		return driver.Errorf(driver.Invalid, "the code of a dead-letter reason has %d bytes, it must have 1 to 64", len(r.Code))
	}
	for _, c := range []byte(r.Code) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return driver.Errorf(driver.Invalid, "the code of a dead-letter reason has characters outside [a-z0-9_]")
		}
	}
	if len(r.Description) > 512 {
		return driver.Errorf(driver.Invalid, "the description of a dead-letter reason has %d bytes, the limit is 512", len(r.Description))
	}
	return nil
}

func (d *Delivery) expired(now time.Time) bool {
	t := d.HeldUntil()
	return !t.IsZero() && !now.Before(t)
}

// errNotReceived is the error of settling or renewing a Delivery that a program made
// itself: no broker has such a message.
var errNotReceived = invalidOption("no Receiver received this Delivery, so that it cannot be settled; tests make one with queuetest.NewDelivery")

// finished reports whether the message left the queue by this delivery.
func (d *Delivery) finished() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.done && d.kind != driver.Abandon && d.kind != driver.Release
}

// Context returns ctx with the trace context that came with the message if the
// Client has an Observer, and ctx itself otherwise. The trace context is not
// authenticated: the broker can set it.
func (d *Delivery) Context(ctx context.Context) context.Context {
	if d.r == nil {
		return ctx
	}
	return d.r.obs.WithTrace(ctx, d.trace)
}

// Complete removes the message: it is handled. With a replay store it is first marked as
// handled; if that fails the message stays at the broker, so that the call can be
// repeated. Once it is marked, Complete returns nil although the lock is over. Complete
// fails with ErrLockLost if another receiver has the message by now, or will get it, and
// handles it again. It fails with ErrSettled if the message was settled before, and with
// ErrClosed once the Receiver is closed: the message may be marked all the same, and then a
// redelivery is completed without being handled.
func (d *Delivery) Complete(ctx context.Context) error {
	return d.settle(ctx, "complete", driver.Settlement{Kind: driver.Complete})
}

// Abandon gives the message back, to be delivered again after delay at the
// earliest; 0 means at once. A broker without such a delay answers
// errors.ErrUnsupported to a delay above zero, and the lock stays. It fails with ErrSettled
// and ErrClosed as Complete does; Close has given the message back.
func (d *Delivery) Abandon(ctx context.Context, delay time.Duration) error {
	return d.giveBack(ctx, "abandon", driver.Settlement{Kind: driver.Abandon, Delay: delay})
}

// Release gives the message back unspent, to be delivered again after delay at the
// earliest: for a message that was not tried. On a broker with
// Capabilities().ReleaseUncounted the delivery does not count towards MaxDeliveries; on
// any other, Release is Abandon to the broker. If that broker has no limit of its own,
// the Receiver takes its releases off Count for as long as it lives, for the last 4,096
// messages. Delays and errors are as in Abandon.
func (d *Delivery) Release(ctx context.Context, delay time.Duration) error {
	return d.giveBack(ctx, "release", driver.Settlement{Kind: driver.Release, Delay: delay})
}

func (d *Delivery) giveBack(ctx context.Context, op string, s driver.Settlement) error {
	if d.r == nil {
		return wrap(op, d.Queue, errNotReceived)
	}
	caps := &d.r.caps
	switch {
	case s.Delay < 0:
		return wrap(op, d.Queue, invalidOption("delay is negative"))
	case s.Delay > 0 && caps.AbandonDelay == driver.None:
		return wrap(op, d.Queue, driver.Unsupported("a delay on "+op))
	case caps.MaxDelay > 0 && s.Delay > caps.MaxDelay:
		return wrap(op, d.Queue, invalidOption("delay %s exceeds this broker's limit of %s", s.Delay, caps.MaxDelay))
	}
	return d.settle(ctx, op, s)
}

// DeadLetter moves the message, as it is, to the queue's dead-letter queue. It fails with
// errors.ErrUnsupported on a broker that has none, and with ErrSettled and ErrClosed as
// Complete does.
func (d *Delivery) DeadLetter(ctx context.Context, reason Reason) error {
	if err := reason.validate(); err != nil {
		return wrap("dead-letter", d.Queue, err)
	}
	if d.r == nil {
		return wrap("dead-letter", d.Queue, errNotReceived)
	}
	if d.r.caps.DeadLetter == driver.None {
		// Before the claim is given up: the message can still be completed.
		return wrap("dead-letter", d.Queue, driver.Unsupported("dead-lettering"))
	}
	err := d.settle(ctx, "dead-letter", driver.Settlement{Kind: driver.MoveToDeadLetter, Reason: reason.Code, Description: d.describe(ctx, reason)})
	if err == nil {
		d.r.obs.DeadLettered(ctx, d.r.obs.Source, observe.DeadLettered{Reason: reason.Code})
	}
	return err
}

// detailTimeout bounds how long a key provider keeps a message from being dead-lettered.
const detailTimeout = 2 * time.Second

// describe returns what is stored of a reason beside its code.
func (d *Delivery) describe(ctx context.Context, reason Reason) string {
	r := d.r
	if reason.Detail == "" || !r.cfg.Enabled || r.sealer == nil {
		return reason.Description
	}
	ctx, cancel := context.WithTimeout(ctx, detailTimeout)
	defer cancel()
	text, f := r.sealer.AppendDetail(ctx, reason.Description, reason.Detail, d.raw.Body)
	if f == nil {
		return text
	}
	if !errors.Is(f, errors.ErrUnsupported) {
		r.log.LogAttrs(ctx, slog.LevelWarn, "Dead letter without its detail, which could not be sealed",
			slog.String("queue", r.queue), slog.String("message_id", d.ID), slog.String("error", f.Error()))
	}
	return reason.Description
}

// Renew extends the lock, and with replay protection the claim, by a full lock time. It
// fails with ErrLockLost if the lock is over: another receiver may have the message; with
// ErrSettled if it was settled; and with ErrClosed once the Receiver is closed. If
// another renewal of the delivery is in flight, such as one by a worker.Pool,
// Renew waits for it first.
func (d *Delivery) Renew(ctx context.Context) error {
	if err := checkContext(ctx); err != nil {
		return wrap("renew", d.Queue, err)
	}
	if d.r == nil {
		return wrap("renew", d.Queue, errNotReceived)
	}
	d.mu.Lock()
	done := d.done
	d.mu.Unlock()
	if done {
		return wrap("renew", d.Queue, driver.ErrSettled)
	}
	if err := d.awaitRenewal(ctx); err != nil {
		return err
	}
	return wrap("renew", d.Queue, d.r.renew(ctx, d.src, []renewal{{d: d}})[0].Err)
}

// renewCalls returns renewCall, made if there is none yet.
func (d *Delivery) renewCalls() chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.renewCall == nil {
		d.renewCall = make(chan struct{}, 1)
	}
	return d.renewCall
}

// beginRenewal reports whether no renewal of the delivery is under way, and begins one if so,
// which endRenewal ends. Drivers are not required to support two at once.
func (d *Delivery) beginRenewal() bool {
	select {
	case d.renewCalls() <- struct{}{}:
		return true
	default:
		return false
	}
}

// awaitRenewal is beginRenewal that waits for the renewal under way. Its error is ctx's.
func (d *Delivery) awaitRenewal(ctx context.Context) error {
	select {
	case d.renewCalls() <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *Delivery) endRenewal() { <-d.renewCalls() }

// RenewAll extends the locks, and the claims, of deliveries of this Receiver and its
// sessions, with one call to the broker for each queue or session. It returns one
// error (or nil) for each, as Renew does. A delivery that another call is renewing
// at the moment gets an error that says so, and keeps its lock.
func (r *Receiver) RenewAll(ctx context.Context, batch []*Delivery) []error {
	out := make([]error, len(batch))
	if err := checkContext(ctx); err != nil {
		for i := range out {
			out[i] = wrap("renew", r.queue, err)
		}
		return out
	}
	for at, end := 0, 1; at < len(batch); at, end = end, end+1 {
		if batch[at].r == nil {
			out[at] = wrap("renew", r.queue, errNotReceived)
			continue
		}
		for end < len(batch) && batch[end].src == batch[at].src {
			end++
		}
		renewals := make([]renewal, 0, end-at)
		for i, d := range batch[at:end] {
			if !d.beginRenewal() {
				out[at+i] = wrap("renew", r.queue, errRenewing)
				continue
			}
			renewals = append(renewals, renewal{d: d, index: at + i})
		}
		for _, x := range r.renew(ctx, batch[at].src, renewals) {
			out[x.index] = wrap("renew", r.queue, x.Err)
		}
	}
	return out
}

// errRenewing is what RenewAll says of a delivery that another call renews.
var errRenewing = errors.New("a renewal of this delivery is under way")

var errFewResults = errors.New("the driver returned too few results")

// renewal is the renewal of one delivery.
type renewal struct {
	d     *Delivery
	index int // of d in the batch of RenewAll
	driver.RenewResult
}

// renew extends the locks, and the claims, of deliveries of one source. The caller has begun
// the renewals; renew ends them, and returns them with what they came to.
func (r *Receiver) renew(ctx context.Context, src driver.Source, renewals []renewal) []renewal {
	if len(renewals) == 0 {
		return nil
	}
	raw := make([]*driver.Delivery, len(renewals))
	for i, x := range renewals {
		raw[i] = x.d.raw
	}
	n := 0         // renewals that are recorded
	defer func() { // none unless the driver or the store panicked
		for _, x := range renewals[n:] {
			x.d.endRenewal()
		}
	}()
	results := src.Renew(ctx, raw)
	for i := range renewals {
		x := &renewals[i]
		if i >= len(results) {
			x.Err = errFewResults
			continue
		}
		x.RenewResult = results[i]
	}
	if r.store != nil {
		r.renewClaims(ctx, renewals)
	}
	for i := range renewals {
		x := &renewals[i]
		n++
		x.d.renewed(x)
		r.obs.Renewed(ctx, r.obs.Source, observe.Renewed{Err: x.Err})
	}
	return renewals
}

// renewed records the result of a renewal, and lets the next one begin.
func (d *Delivery) renewed(x *renewal) {
	defer d.endRenewal()
	if x.Err != nil {
		return
	}
	d.mu.Lock()
	d.lockedUntil = x.LockedUntil
	if !d.claim.none() {
		d.claimedUntil = claimEnd(x.LockedUntil, time.Now())
	}
	d.mu.Unlock()
	if d.session != nil {
		d.session.extend(x.LockedUntil)
	}
}

// HeldUntil returns when this receiver loses the message unless it renews it: the end of
// its lock, or of its claim in the replay store if the lock has no end in time, or one after
// more than 12 hours. Zero means that neither ends.
func (d *Delivery) HeldUntil() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lockedUntil.IsZero() || !d.claimedUntil.IsZero() {
		return d.claimedUntil
	}
	return d.lockedUntil
}

func (d *Delivery) settle(ctx context.Context, op string, s driver.Settlement) error {
	if err := checkContext(ctx); err != nil {
		return wrap(op, d.Queue, err)
	}
	if d.r == nil {
		return wrap(op, d.Queue, errNotReceived)
	}
	d.mu.Lock()
	if d.settling || d.done {
		d.mu.Unlock()
		return wrap(op, d.Queue, driver.ErrSettled)
	}
	d.settling = true
	d.mu.Unlock()
	settled := false
	defer d.endSettle(&settled, s.Kind) // also if the store or the driver panics: another call may settle it then

	operation := observe.Operation{Kind: observe.Settle, Disposition: s.Kind.Disposition(), Count: 1, MessageID: d.raw.ID, SessionID: d.raw.SessionID}
	if d.r.obs.Traces() && d.trace != nil {
		operation.Links = []map[string]string{d.trace}
	}
	ctx, end := d.r.obs.Start(ctx, operation)
	err := d.endClaim(ctx, s.Kind)
	if err == nil {
		s.Delivery = d.raw
		errs := d.src.Settle(ctx, []driver.Settlement{s})
		if len(errs) != 1 {
			err = errors.New("the driver returned no result")
		} else {
			err = d.afterClaim(ctx, s.Kind, errs[0])
		}
	}
	if settled = err == nil; settled {
		d.r.countRelease(d.raw.BrokerID, s.Kind)
		if d.session != nil {
			d.session.drop(d)
		}
	}
	end(observe.Result{Err: err, Count: 1})
	return wrap(op, d.Queue, err)
}

// endSettle notes what a call of settle came to.
func (d *Delivery) endSettle(settled *bool, kind driver.SettleKind) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.settling, d.done, d.kind = false, *settled, kind
}

// afterClaim turns the broker's answer to a settlement into the caller's. A message that
// the replay store has as consumed counts as handled although its lock is over: if the
// broker delivers it again, the receiver completes it silently.
func (d *Delivery) afterClaim(ctx context.Context, kind driver.SettleKind, err error) error {
	if kind != driver.Complete || d.claim.none() || !errors.Is(err, driver.ErrLockLost) {
		return err
	}
	d.r.log.LogAttrs(ctx, slog.LevelInfo, "Message is handled although its lock was over: a redelivery is completed",
		slog.String("queue", d.r.queue), slog.String("message_id", d.ID))
	return nil
}

// Claim returns what the delivery holds in the replay store, for packages that consume it
// in a transaction of their own. ok is false if replays are not tracked.
func (d *Delivery) Claim() (group string, f replay.Finish, ok bool) {
	if d.claim.none() {
		return "", replay.Finish{}, false
	}
	return d.r.options.Group, d.claim.ends(replay.Consumed), true
}

// endClaim puts the replay store first: consumed before the broker forgets the message,
// released before the broker gives it to another receiver, parked before it is moved.
func (d *Delivery) endClaim(ctx context.Context, kind driver.SettleKind) error {
	if d.claim.none() {
		return nil
	}
	r := d.r
	f := d.claim.ends(replay.Released)
	switch kind {
	case driver.Complete:
		f.Kind = replay.Consumed
		return r.storeError(ctx, r.finishes.finish(ctx, f))
	case driver.MoveToDeadLetter:
		f.Kind = replay.Parked
	}
	limit := releaseTimeout
	if end, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(end)/2) // the rest is for the broker
	}
	storeCtx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := r.finishes.finish(storeCtx, f); err != nil && !errors.Is(err, replay.ErrClaimLost) && !errors.Is(err, replay.ErrHandled) {
		// The claim then lives until its lease ends, and the redelivery waits for that.
		// Not settling would hold the message no shorter.
		r.log.LogAttrs(ctx, slog.LevelWarn, "Claim not released: redelivery waits for its lease to end",
			slog.String("queue", r.queue), slog.String("message_id", d.ID), slog.String("error", err.Error()))
	}
	return nil
}
