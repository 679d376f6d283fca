package sqsqueue

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/queue-runtime/queue/driver"
)

// deletion is a message on its way out of the queue.
type deletion struct {
	r    *receipt
	done chan error // of capacity 1
}

// deletions joins what is completed at about the same time into requests of ten:
// handlers complete one message each, and a request of one costs as much as one
// of ten. Ten go at once. Fewer wait a moment for more, but only while others
// are being handled, and longer only while a request is under way.
type deletions struct {
	pending  []*deletion
	requests int // requests under way
	deleting int // messages in them
	linger   *time.Timer
}

const (
	lingerIdle = 2 * time.Millisecond  // while no request is under way
	lingerBusy = 25 * time.Millisecond // while one is
)

// requestTimeout bounds a request that is the queue's own, and so ends on no
// caller's context.
const requestTimeout = 15 * time.Second

// remove deletes the messages of rs, which are being settled, and returns one
// error or nil each. It concludes their settlement, also when ctx ends first.
func (q *queue) remove(ctx context.Context, rs []*receipt) []error {
	list := make([]*deletion, len(rs))
	errs := make([]error, len(rs))
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		for i := range errs {
			errs[i] = &driver.Error{Kind: driver.Closed}
		}
		return errs
	}
	for i, r := range rs {
		list[i] = &deletion{r: r, done: make(chan error, 1)}
	}
	q.pending = append(q.pending, list...)
	q.launchDeletions(q.out <= len(q.pending)+q.deleting)
	q.mu.Unlock()
	for i, d := range list {
		select {
		case errs[i] = <-d.done:
		case <-ctx.Done():
			errs[i] = ctx.Err()
			q.leave(d.r)
		}
	}
	return errs
}

// leave notes that the call that settles r has given up, unless that is concluded.
func (q *queue) leave(r *receipt) {
	q.mu.Lock()
	defer q.mu.Unlock()
	r.unanswered = r.state == settling
}

// atOnce launches deletions that do not fill a request, too.
const atOnce = true

// launchDeletions starts the requests that are due. It sends fewer than ten deletions
// in one request only if now is set. The caller holds mu.
func (q *queue) launchDeletions(now bool) {
	for len(q.pending) >= maxEntries || len(q.pending) > 0 && now {
		part := q.pending[:min(len(q.pending), maxEntries)]
		if q.pending = q.pending[len(part):]; len(q.pending) == 0 {
			q.pending = nil
		}
		q.requests++
		q.deleting += len(part)
		q.work.Add(1)
		go func() {
			defer q.work.Done()
			q.delete(part)
		}()
	}
	if len(q.pending) == 0 || q.linger != nil {
		return
	}
	wait := lingerIdle
	if q.requests > 0 {
		wait = lingerBusy
	}
	q.work.Add(1)
	q.linger = time.AfterFunc(wait, func() {
		defer q.work.Done()
		q.mu.Lock()
		defer q.mu.Unlock()
		q.linger = nil
		q.launchDeletions(atOnce)
	})
}

// delete makes one request.
func (q *queue) delete(part []*deletion) {
	const op = "DeleteMessageBatch"
	entries := make([]types.DeleteMessageBatchRequestEntry, len(part))
	for i, d := range part {
		entries[i] = types.DeleteMessageBatchRequestEntry{Id: aws.String(itoa(i)), ReceiptHandle: aws.String(d.r.handle)}
	}
	errs := unanswered(op, len(part))
	ctx, cancel := context.WithTimeout(q.ctx, requestTimeout)
	defer cancel()
	out, err := q.broker.api.DeleteMessageBatch(ctx, &sqs.DeleteMessageBatchInput{QueueUrl: aws.String(q.url), Entries: entries})
	switch {
	case err != nil && ctx.Err() != nil:
		// No caller's context ended: the request timed out, or Close cancelled it.
		for i := range errs {
			errs[i] = noAnswer(op)
		}
	case err != nil:
		err = q.classify(ctx, op, err)
		for i := range errs {
			errs[i] = err
		}
	default:
		for _, ok := range out.Successful {
			if i, valid := entryIndex(ok.Id, len(errs)); valid {
				errs[i] = nil
			}
		}
		entryErrors(op, out.Failed, errs)
	}
	now := time.Now()
	q.mu.Lock()
	q.requests--
	q.deleting -= len(part)
	q.launchDeletions(atOnce)
	if !q.closed {
		for i, d := range part {
			q.conclude(d.r, errs[i], now)
		}
		q.dispatch(now)
		q.demand(now)
	}
	q.mu.Unlock()
	for i, d := range part {
		d.done <- errs[i]
	}
}
