package sqsqueue

import (
	"context"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/queue-runtime/queue/driver"
)

func itoa(n int) string { return strconv.Itoa(n) }

// receiptOf returns d's receipt if it came from this queue.
func (q *queue) receiptOf(d *driver.Delivery) (*receipt, error) {
	if d != nil {
		if r, ok := d.Receipt.(*receipt); ok && r.q == q {
			return r, nil
		}
	}
	return nil, driver.Errorf(driver.Invalid, "the delivery was not received from this queue")
}

// usable returns why r can no longer be settled or renewed; under mu.
func (r *receipt) usable(now time.Time) error {
	switch {
	case r.unanswered:
		return driver.Errorf(driver.Unavailable, "SQS has not yet answered to a settlement before this")
	case r.state == settled || r.state == settling:
		return &driver.Error{Kind: driver.Settled}
	case r.state == lost || !now.Before(r.lease):
		return &driver.Error{Kind: driver.LockLost}
	}
	return nil
}

// Settle implements driver.Source. SQS itself settles through a handle whose lock is
// over, on a standard queue even if another receiver holds the message by then. So this
// process's clock decides whether the lock is over, and Settle does not send such a
// settlement.
//
// To abandon a message of a FIFO queue gives back everything behind it in its
// group that was not handed out yet, so that it comes again at once and in order.
func (q *queue) Settle(ctx context.Context, s []driver.Settlement) []error {
	errs := make([]error, len(s))
	if err := q.check(ctx); err != nil {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	var remove, abandon, dead []int
	rs := make([]*receipt, len(s))
	var tail []*receipt
	now := time.Now()
	q.mu.Lock()
	for i := range s {
		r, err := q.receiptOf(s[i].Delivery)
		if err == nil {
			err = q.accepts(&s[i])
		}
		if err == nil {
			err = r.usable(now)
		}
		if err != nil {
			errs[i] = err
			continue
		}
		r.state, rs[i] = settling, r
		switch s[i].Kind {
		case driver.Complete:
			remove = append(remove, i)
		case driver.MoveToDeadLetter:
			dead = append(dead, i)
		case driver.Abandon, driver.Release:
			abandon = append(abandon, i)
			for _, t := range r.g.waiting {
				t.state = lost
			}
			tail = append(tail, r.g.waiting...)
			r.g.waiting = nil
		}
	}
	q.mu.Unlock()
	var failed []int
	if len(dead) > 0 {
		var copied []int
		copied, failed = q.deadLetterAll(ctx, s, rs, dead, errs)
		remove = append(remove, copied...)
	}
	q.abandonAll(ctx, s, rs, abandon, tail, errs)
	if concluded := append(failed, abandon...); len(concluded) > 0 {
		now = time.Now()
		q.mu.Lock()
		if !q.closed {
			for _, i := range concluded {
				q.conclude(rs[i], errs[i], now)
			}
			q.dispatch(now)
			q.demand(now)
		}
		q.mu.Unlock()
	}
	if len(remove) > 0 {
		going := make([]*receipt, len(remove))
		for n, i := range remove {
			going[n] = rs[i]
		}
		for n, err := range q.remove(ctx, going) {
			errs[remove[n]] = err
		}
	}
	return errs
}

// accepts refuses settlements that this queue cannot carry out.
func (q *queue) accepts(s *driver.Settlement) error {
	givesBack := s.Kind == driver.Abandon || s.Kind == driver.Release
	switch {
	case s.Kind == driver.Complete:
		return nil
	case givesBack && s.Delay < 0:
		return driver.Errorf(driver.Invalid, "the delay is negative")
	case givesBack && s.Delay > maxVisibility:
		return driver.Unsupported("a delay beyond 12 h")
	case givesBack:
		return nil
	case s.Kind == driver.MoveToDeadLetter && q.deadLetters:
		return driver.Unsupported("dead-lettering from a dead-letter queue")
	case s.Kind == driver.MoveToDeadLetter && q.target.name == "":
		return noDeadLetters()
	case s.Kind == driver.MoveToDeadLetter:
		return nil
	}
	return driver.Errorf(driver.Invalid, "settling by a kind of %d", s.Kind)
}

// conclude ends a settlement that was sent.
func (q *queue) conclude(r *receipt, err error, now time.Time) {
	r.unanswered = false
	switch {
	case err == nil:
		r.state = settled
	case isLost(err):
		r.state = lost
		if r.g.owner != nil {
			q.lose(r.g, now)
		}
	default:
		r.state = held // it may be tried again
		return
	}
	q.detach(r, now)
}

// deadLetterAll copies, and returns those that may now be deleted and those that
// failed.
func (q *queue) deadLetterAll(ctx context.Context, s []driver.Settlement, rs []*receipt, dead []int, errs []error) (copied, failed []int) {
	moved := make([]driver.Settlement, len(dead))
	receipts := make([]*receipt, len(dead))
	for n, i := range dead {
		moved[n], receipts[n] = s[i], rs[i]
	}
	for n, err := range q.copyToDeadLetters(ctx, moved, receipts) {
		i := dead[n]
		if errs[i] = err; err == nil {
			copied = append(copied, i)
		} else {
			failed = append(failed, i)
		}
	}
	return copied, failed
}

// abandonAll gives back the abandoned messages and the tail behind them. The last goes
// first: SQS delivers it to no receiver while an earlier one of its group is in flight.
func (q *queue) abandonAll(ctx context.Context, s []driver.Settlement, rs []*receipt, which []int, tail []*receipt, errs []error) {
	if len(which) == 0 {
		return
	}
	now := time.Now()
	changes := make([]change, 0, len(tail)+len(which))
	for i := len(tail) - 1; i >= 0; i-- {
		changes = append(changes, change{tail[i], 0})
	}
	for n := len(which) - 1; n >= 0; n-- {
		r := rs[which[n]]
		// Whole seconds, never early, within what is left of the 12 hours.
		d := min((s[which[n]].Delay + time.Second - 1).Truncate(time.Second), r.remaining(now))
		changes = append(changes, change{r, max(d, 0)})
	}
	q.awaitRenewals(ctx, changes)
	result := q.setVisibility(ctx, changes)[len(tail):]
	for n := range which {
		errs[which[n]] = result[len(which)-1-n]
	}
}

// remaining is what is left of the 12 hours, in whole seconds.
func (r *receipt) remaining(now time.Time) time.Duration {
	return r.received.Add(maxVisibility).Sub(now).Truncate(time.Second)
}

// change is a new visibility timeout, in whole seconds.
type change struct {
	r  *receipt
	to time.Duration
}

// setVisibility returns one error or nil for each change.
func (q *queue) setVisibility(ctx context.Context, changes []change) []error {
	const op = "ChangeMessageVisibilityBatch"
	var errs []error
	for len(changes) > 0 {
		part := changes[:min(len(changes), maxEntries)]
		changes = changes[len(part):]
		entries := make([]types.ChangeMessageVisibilityBatchRequestEntry, len(part))
		for n, c := range part {
			entries[n] = types.ChangeMessageVisibilityBatchRequestEntry{
				Id:                aws.String(itoa(n)),
				ReceiptHandle:     aws.String(c.r.handle),
				VisibilityTimeout: int32(c.to / time.Second), //nolint:gosec // G115: at most 43200
			}
		}
		result := unanswered(op, len(part))
		out, err := q.broker.api.ChangeMessageVisibilityBatch(ctx, &sqs.ChangeMessageVisibilityBatchInput{QueueUrl: aws.String(q.url), Entries: entries})
		if err != nil {
			err = q.classify(ctx, op, err)
			for n := range result {
				result[n] = err
			}
		} else {
			for _, ok := range out.Successful {
				if n, valid := entryIndex(ok.Id, len(result)); valid {
					result[n] = nil
				}
			}
			entryErrors(op, out.Failed, result)
		}
		errs = append(errs, result...)
	}
	return errs
}

// release makes messages visible again, the last first, and returns the first
// error. A lock that is over needs none.
func (q *queue) release(ctx context.Context, rs []*receipt) error {
	if len(rs) == 0 {
		return nil
	}
	changes := make([]change, 0, len(rs))
	for i := len(rs) - 1; i >= 0; i-- {
		changes = append(changes, change{rs[i], 0})
	}
	q.awaitRenewals(ctx, changes)
	for _, err := range q.setVisibility(ctx, changes) {
		if err != nil && !isLost(err) {
			return err
		}
	}
	return nil
}

// giveBack releases messages that no caller has. If it fails, their locks run out.
func (q *queue) giveBack(rs []*receipt) {
	ctx, cancel := context.WithTimeout(q.ctx, requestTimeout)
	defer cancel()
	_ = q.release(ctx, rs)
}
