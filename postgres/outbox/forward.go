package outbox

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/observe"
)

// item is a message on its way from the outbox to the broker.
type item struct {
	delivery *driver.Delivery
	header   envelope.Header
	verdict  verdict
	err      error // of the broker
}

var errFewResults = errors.New("the driver returned too few results")

// forward sends a batch and settles it. A batch has at most one message of a session: the
// outbox delivers the next when that one is settled. Its error is that the broker is
// closed.
func (f *Forwarder) forward(ctx context.Context, batch []*driver.Delivery, permit *backoff.Permit) error {
	var refused, good []*item
	now := time.Now()
	for _, d := range batch {
		h, v, ok := beforeSending(d, now, f.options.MaxAge)
		i := &item{delivery: d, header: h, verdict: v}
		if ok {
			good = append(good, i)
		} else {
			refused = append(refused, i)
		}
	}
	f.settle(ctx, refused)
	defer permit.Unused() // unless the broker was asked
	var closed error
	for len(good) > 0 {
		call := good[:f.fitting(good)]
		good = good[len(call):]
		if !f.held(call) || closed != nil {
			f.settle(ctx, release(call))
			continue
		}
		f.send(ctx, call)
		f.settle(ctx, call)
		if outage(call) {
			permit.Failed()
			f.settle(ctx, release(good))
			good = nil
		}
		permit.Succeeded() // unless it failed
		for _, i := range call {
			if errors.Is(i.err, driver.ErrClosed) {
				closed = i.err
			}
		}
	}
	return closed
}

func outage(call []*item) bool {
	for _, i := range call {
		if i.verdict.outage {
			return true
		}
	}
	return false
}

func release(list []*item) []*item {
	for _, i := range list {
		i.verdict = verdict{kind: driver.Release}
	}
	return list
}

// held reports whether the locks of a call outlast it. Otherwise this process stood still,
// and another forwarder may have the messages already.
func (f *Forwarder) held(call []*item) bool {
	for _, i := range call {
		if time.Until(i.delivery.LockedUntil) < f.options.SendTimeout {
			return false
		}
	}
	return true
}

// fitting is how many messages one call to the broker takes, at least one.
func (f *Forwarder) fitting(list []*item) int {
	caps := f.to.Capabilities()
	n, size := 0, 0
	for _, i := range list[:min(len(list), max(1, caps.MaxBatch))] {
		if size += f.to.Size(&i.delivery.Message); n > 0 && caps.MaxBatchBytes > 0 && size > caps.MaxBatchBytes {
			break
		}
		n++
	}
	return n
}

// outgoing is a message as the broker gets it. It is due already, and what is left of its
// time to live is what counts from now.
func outgoing(i *item, now time.Time) *driver.Message {
	m := i.delivery.Message
	if !m.NotBefore.After(now) {
		m.NotBefore = time.Time{}
	}
	if m.TTL > 0 && i.header.ExpiresAt != 0 {
		m.TTL = max(time.Millisecond, min(m.TTL, i.header.ExpiresTime().Sub(now)))
	}
	return &m
}

// send makes one call and gives each message its verdict.
func (f *Forwarder) send(ctx context.Context, call []*item) {
	now := time.Now()
	op := observe.Operation{Kind: observe.Send, Count: len(call), Encrypted: true}
	messages := make([]*driver.Message, len(call))
	for n, i := range call {
		messages[n] = outgoing(i, now)
		if f.obs.Traces() {
			op.Links = append(op.Links, i.delivery.Trace)
		}
	}
	if len(call) == 1 {
		op.MessageID, op.SessionID, op.KeyID = messages[0].ID, messages[0].SessionID, keys.ID(call[0].header.KeyID)
	}
	ctx, end := f.obs.Start(ctx, op)
	limited, cancel := context.WithTimeout(ctx, f.options.SendTimeout)
	results := f.to.Send(limited, messages)
	cancel()
	var first error
	sent := 0
	for n, i := range call {
		i.err = errFewResults
		if n < len(results) {
			i.err = results[n].Err
		}
		i.verdict = afterSending(i.err, i.delivery.Count, f.limit, f.options.Retry)
		if i.err == nil {
			sent++
			f.obs.Sent(ctx, f.obs.Source, observe.Sent{Encrypted: true, KeyID: keys.ID(i.header.KeyID), Bytes: len(i.delivery.Body)})
		} else if first == nil {
			first = i.err
		}
	}
	end(observe.Result{Err: first, Count: sent})
}

// settle performs the verdicts. What cannot be settled is delivered again when its lock
// is over.
func (f *Forwarder) settle(ctx context.Context, list []*item) {
	if len(list) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	settlements := make([]driver.Settlement, len(list))
	for n, i := range list {
		v := i.verdict
		settlements[n] = driver.Settlement{Delivery: i.delivery, Kind: v.kind, Delay: v.delay, Reason: v.reason, Description: v.description}
	}
	errs := f.from.Settle(ctx, settlements)
	for n, i := range list {
		err := errFewResults
		if n < len(errs) {
			err = errs[n]
		}
		f.tell(ctx, i, err)
	}
}

// tell reports what became of a message.
func (f *Forwarder) tell(ctx context.Context, i *item, settleErr error) {
	id := slog.String("message_id", i.delivery.ID)
	switch {
	case settleErr != nil && i.verdict.kind == driver.Complete:
		f.log.LogAttrs(ctx, slog.LevelWarn, "Message sent from the outbox and not removed: it is sent again", id, slog.String("error", settleErr.Error()))
	case settleErr != nil:
		f.log.LogAttrs(ctx, slog.LevelWarn, "Message of the outbox cannot be settled: it is tried again", id, slog.String("error", settleErr.Error()))
	case i.verdict.kind == driver.MoveToDeadLetter:
		f.obs.DeadLettered(ctx, f.obs.Source, observe.DeadLettered{Reason: i.verdict.reason})
		f.log.LogAttrs(ctx, slog.LevelWarn, "Message of the outbox dead-lettered", id, slog.String("reason", i.verdict.reason), errorOf(i.err))
	case i.verdict.kind == driver.Abandon:
		f.obs.Retried(ctx, f.obs.Source, observe.Retried{Delay: i.verdict.delay})
		f.log.LogAttrs(ctx, slog.LevelWarn, "Message of the outbox not sent", id, slog.Duration("delay", i.verdict.delay), errorOf(i.err))
	}
}

// errorOf is an attribute for an error of the broker, which never holds a payload.
func errorOf(err error) slog.Attr {
	if err == nil {
		return slog.Attr{}
	}
	return slog.String("error", err.Error())
}
