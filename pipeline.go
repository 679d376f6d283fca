package queue

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/intake"
	"github.com/queue-runtime/queue/observe"
	"github.com/queue-runtime/queue/replay"
)

// This file is the receive pipeline: it fetches a batch, examines each message on its own,
// decides in order what becomes of each, and performs the decisions with one call. Its
// invariant: each fetched message becomes a Delivery or is settled, or its lock runs out;
// no message is deleted because it could not be read.

// fetchRequest is one call to the broker that receives.
type fetchRequest struct {
	source driver.Source
	limit  int           // messages, at least 1
	wait   time.Duration // for the first message
	// session is that whose messages these are: the batch ends at a message that must
	// wait, and what stands behind it is given back unseen. Nil for the queue's own.
	session *Session
}

// taken is one message on its way through the pipeline.
type taken struct {
	d       *Delivery
	session *Session // nil if it came from the queue itself
	finding intake.Finding
	err     error          // why it is rejected
	wait    time.Duration  // until the reason may be over
	request replay.Request // its claim; for authentic messages, if replays are tracked
	action  intake.Action
	reject  *RejectedError // nil unless rejected or a duplicate
}

// inNamedSession reports whether t came from a session that can have other messages.
func (t *taken) inNamedSession() bool { return t.session != nil && t.session.id != "" }

// fetch calls the broker once and passes its messages through the pipeline. If it brought
// nothing but duplicates, which are completed and not reported, it calls again until
// q.wait is over, unless no other can come: the session is one message.
func (r *Receiver) fetch(ctx context.Context, q fetchRequest) (Batch, error) {
	if err := checkContext(ctx); err != nil {
		return Batch{}, err
	}
	if q.limit < 1 {
		return Batch{}, invalidOption("max is %d, it must be at least 1", q.limit)
	}
	if r.client.closed.Load() {
		return Batch{}, driver.ErrClosed
	}
	if r.store != nil {
		q.limit = min(q.limit, replay.MaxBatch) // claimed with one call
	}
	begun := time.Now()
	deadline := begun.Add(q.wait)
	r.accountant.start(begun)
	if r.syncKeys(ctx) {
		q.wait = max(time.Until(deadline), 0)
	}
	for {
		batch, seen, err := r.fetchOnce(ctx, q, deadline)
		empty := len(batch.Deliveries)+len(batch.Rejected) == 0
		if err != nil || !empty || seen == 0 || q.session != nil && q.session.id == "" {
			return batch, err
		}
		if q.wait = time.Until(deadline); q.wait <= 0 {
			return batch, nil
		}
	}
}

// fetchOnce makes one call to the broker, which waits until the deadline, q.wait from now.
// seen is how many messages came, duplicates included.
func (r *Receiver) fetchOnce(ctx context.Context, q fetchRequest, deadline time.Time) (batch Batch, seen int, err error) {
	permit, err := r.gate.Admit(ctx, q.limit, q.wait)
	if err != nil {
		return Batch{}, 0, err
	}
	defer permit.Idle()
	opCtx, end := r.obs.Start(ctx, observe.Operation{Kind: observe.Receive, Count: permit.Max})
	begin := r.obs.Now()
	if permit.Late {
		q.wait = max(time.Until(deadline), 0)
	}
	raw, err := q.source.Receive(opCtx, permit.Max, q.wait)
	result := observe.Result{Err: err, Count: len(raw)}
	if r.obs.Active() {
		result.Took = time.Since(begin)
	}
	if r.obs.Traces() {
		result.Links = make([]map[string]string, len(raw))
		for i, d := range raw {
			result.Links[i] = d.Trace
		}
	}
	if err != nil {
		end(result)
		return Batch{}, 0, err
	}
	batch = r.take(opCtx, q, raw, &permit)
	end(result) // only now, so that what was found of the messages is noted on its span
	if err := ctx.Err(); err != nil {
		q.session.strand(release(ctx, batch.Deliveries))
		batch.Deliveries = nil
		return batch, len(raw), err
	}
	if q.session == nil { // a session whose lock is over says so itself
		if err := r.arrivals.judge(batch.Deliveries); err != nil {
			_ = release(ctx, batch.Deliveries)
			batch.Deliveries = nil
			return batch, len(raw), err
		}
	}
	return batch, len(raw), nil
}

// batches are the batches of earlier calls of take, empty.
var batches = sync.Pool{New: func() any { return new([]taken) }}

// take passes the fetched messages through the pipeline.
func (r *Receiver) take(ctx context.Context, q fetchRequest, raw []*driver.Delivery, permit *intake.Permit) Batch {
	if len(raw) == 0 {
		return Batch{}
	}
	of, _ := batches.Get().(*[]taken) // holds nothing else
	all := slices.Grow(*of, len(raw))[:len(raw)]
	defer func() {
		clear(all) // it keeps no message
		*of = all[:0]
		batches.Put(of)
	}()
	if len(raw) == 1 {
		r.takeOne(ctx, q, raw[0], &all[0])
	} else {
		r.takeAll(ctx, q, raw, all)
	}
	if r.store != nil {
		r.claimAll(ctx, all)
	}
	for i := range all {
		r.checkDeliveries(&all[i])
	}
	r.decide(ctx, all, permit)
	r.perform(ctx, q.source, all)
	r.syncKeys(ctx)
	return r.batch(ctx, all)
}

// takeAll examines the messages of a batch, in several goroutines if that pays.
func (r *Receiver) takeAll(ctx context.Context, q fetchRequest, raw []*driver.Delivery, all []taken) {
	bytes := 0
	for _, d := range raw {
		bytes += len(d.Body)
	}
	parallel(len(raw), bytes, func(i int) { r.takeOne(ctx, q, raw[i], &all[i]) })
}

// takeOne examines one message.
func (r *Receiver) takeOne(ctx context.Context, q fetchRequest, raw *driver.Delivery, t *taken) {
	t.session = q.session
	t.d = &Delivery{r: r, src: q.source, raw: raw, lockedUntil: raw.LockedUntil}
	t.d.fill(r.queue, raw)
	t.d.Count = r.releases.spent(raw.BrokerID, raw.Count)
	r.examine(ctx, t)
}

// decide says what becomes of each message, in the order in which they came.
func (r *Receiver) decide(ctx context.Context, all []taken, permit *intake.Permit) {
	for i := range all {
		// First, so that a forgery which stands in front of a good message is known as one.
		if t := &all[i]; t.d.Encrypted {
			r.opened(ctx, permit, t.d.KeyID)
			permit.Answered(ctx) // also if the message is a copy, or expired
		}
	}
	policy := intake.Policy{
		MaxDeliveries:   r.options.MaxDeliveries,
		RotationHorizon: r.options.RotationHorizon,
		Delays:          r.caps.AbandonDelay != driver.None,
		MaxDelay:        r.caps.MaxDelay,
		InOrder:         all[0].session != nil,
	}
	blocked := false
	for i := range all {
		t := &all[i]
		if blocked || ctx.Err() != nil && errors.Is(t.err, ctx.Err()) {
			t.finding = intake.Unseen // nothing is held against it
		}
		t.action = intake.Decide(r.verdict(ctx, t, permit), policy)
		blocked = blocked || t.action.Blocks
		if t.finding == intake.Rejected {
			permit.Passed() // unless the verdict has ended it
		}
	}
}

// verdict is what intake.Decide needs to know of a message. It notes on the permit what
// the message tells about keys, replay store and forgeries.
func (r *Receiver) verdict(ctx context.Context, t *taken, permit *intake.Permit) intake.Verdict {
	v := intake.Verdict{Finding: t.finding, Count: t.d.Count, Wait: t.wait}
	if t.finding == intake.Unseen {
		return v
	}
	switch t.finding {
	case intake.Good:
		permit.Answered(ctx)
	case intake.Duplicate:
		t.reject = r.rejection(t, "")
	case intake.Rejected:
		v.Reason = ReasonOf(t.err)
		t.reject = r.rejection(t, v.Reason)
		t.reject.renewsSession = r.renewsSession(v)
		switch v.Reason {
		case driver.ReasonMaxDeliveries:
			permit.Answered(ctx)
		case driver.ReasonAuthentication:
			r.failed(ctx, t, permit, &v)
		case driver.ReasonUnsupportedVersion:
			v.Final = !slices.Contains(r.cfg.AcceptedVersions, versionOf(t.d.raw.Body))
			r.limitWait(t, &v)
		case driver.ReasonKeyNotFound:
			r.limitWait(t, &v)
		case driver.ReasonKeyProvider, driver.ReasonReplayStore:
			v.Wait = permit.Unanswered(ctx, intake.Outage{Reason: v.Reason, KeyID: t.d.KeyID, Cause: t.err})
			if v.Reason == driver.ReasonKeyProvider {
				v.Wait = r.spreadFailed(v.Wait, v.Count) // a CryptoProvider that is away is tried with messages
			}
		}
	}
	return v
}

// renewsSession reports whether the lock of a message's session is renewed for as long as the
// message has to wait, on a broker without a delay. The lock alone is too short for what the deliveries have
// to last for. If another receiver may be able to handle the message, it is enough.
func (r *Receiver) renewsSession(v intake.Verdict) bool {
	switch v.Reason {
	case driver.ReasonKeyProvider, driver.ReasonReplayStore, driver.ReasonAuthentication:
		return r.spent(v.Count) // else the trouble may be this receiver's alone
	}
	return true
}

// perform settles, with one call, the messages that are not delivered. It runs on a
// context of its own: a message must not stay locked because a caller went away.
func (r *Receiver) perform(ctx context.Context, src driver.Source, all []taken) {
	var settled []*taken
	blocked := false // then nothing overtakes: the session is given up
	for i := range all {
		t := &all[i]
		blocked = blocked || t.action.Blocks
		if t.reject != nil {
			t.reject.Disposition, t.reject.Delay = t.action.Disposition, t.action.Delay
		}
		if t.action.Kind != 0 {
			settled = append(settled, t)
		}
	}
	if len(settled) == 0 {
		return
	}
	settlements := make([]driver.Settlement, len(settled))
	for i, t := range settled {
		settlements[i] = t.settlement()
	}
	ctx = context.WithoutCancel(ctx)
	r.endClaims(ctx, settled)
	ctx, cancel := context.WithTimeout(ctx, settleTimeout) // not what a store that hangs has left of it
	defer cancel()
	errs := src.Settle(ctx, settlements)
	for i, t := range settled {
		err := errFewResults
		if i < len(errs) {
			err = errs[i]
		}
		if t.reject != nil {
			t.reject.SettleErr = err
		}
		if err == nil {
			r.countRelease(t.d.raw.BrokerID, t.action.Kind)
		} else if t.finding == intake.Unseen && !blocked {
			t.session.strand(err)
		}
	}
}

// settlement is how the broker settles a message that is not delivered.
func (t *taken) settlement() driver.Settlement {
	s := driver.Settlement{Delivery: t.d.raw, Kind: t.action.Kind, Delay: t.action.Delay}
	if s.Kind == driver.MoveToDeadLetter {
		s.Reason, s.Description = t.reject.Reason, describe(t.reject.Reason)
	}
	return s
}

// endClaims ends the claims of messages that the application does not get, with one call:
// released if they go back, parked if they become dead letters. A claim that stays ends
// with its lease.
func (r *Receiver) endClaims(ctx context.Context, all []*taken) {
	var ended []replay.Finish
	for _, t := range all {
		if t.d.claim.none() {
			continue
		}
		f := t.d.claim.ends(replay.Released)
		if t.action.Kind == driver.MoveToDeadLetter {
			f.Kind = replay.Parked
		}
		ended = append(ended, f)
	}
	r.finishAll(ctx, ended)
}

// finishAll ends claims that need no answer, at most replay.MaxBatch of them, with one call
// on a context of its own.
func (r *Receiver) finishAll(ctx context.Context, f []replay.Finish) {
	if len(f) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	_, _ = r.store.Finish(ctx, r.options.Group, f)
}

// countRelease keeps the account of releases that the broker counts, once a message is settled.
func (r *Receiver) countRelease(brokerID string, kind driver.SettleKind) {
	switch kind {
	case driver.Release:
		r.releases.note(brokerID)
	case driver.Complete, driver.MoveToDeadLetter:
		r.releases.forget(brokerID)
	case driver.Abandon:
	}
}

// batch reports what became of each message, and returns what the caller gets.
func (r *Receiver) batch(ctx context.Context, all []taken) Batch {
	b := Batch{Deliveries: make([]*Delivery, 0, len(all))}
	for i := range all {
		t := &all[i]
		switch t.finding {
		case intake.Good:
			r.reportReceived(ctx, t.d)
			r.reportGap(ctx, t.d)
			b.Deliveries = append(b.Deliveries, t.d)
		case intake.Duplicate:
			r.reportDuplicate(ctx, t.reject)
		case intake.Rejected:
			b.Rejected = append(b.Rejected, t.reject)
			if t.action.Blocks {
				b.Blocked = t.reject
			}
		}
	}
	for _, e := range b.Rejected {
		r.reportRejected(ctx, e)
		r.countUnread(ctx, e)
	}
	return b
}
