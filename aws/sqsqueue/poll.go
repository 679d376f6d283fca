package sqsqueue

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/queue-runtime/queue/backoff"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/httpclient"
)

// waiter is a call that waits for messages or for a session.
type waiter struct {
	accept   bool     // for a session
	session  *session // for messages of this one
	max      int      // messages, at least 1
	once     bool     // served by a poll of its own
	yields   bool     // gives way to other groups: see groupWait
	deadline time.Time
	until    time.Time // of its polls: deadline, or the end of its context if that is earlier

	done   bool // guarded by queue.mu
	result chan outcome
}

type outcome struct {
	receipts []*receipt
	session  *session
	err      error
}

// finish is called once, under queue.mu.
func (w *waiter) finish(o outcome) {
	w.done = true
	w.result <- o
}

// await waits for at most wait. It returns neither an outcome nor an error if nothing
// came.
//
// A poll that it started outlives the wait, because SQS may already have locked
// messages for it. The next waiter takes the poll over; if there is none, its messages
// are given back.
func (q *queue) await(ctx context.Context, w *waiter, wait time.Duration) (outcome, error) {
	w.result = make(chan outcome, 1)
	now := time.Now()
	w.deadline = now.Add(wait)
	w.until = w.deadline
	if end, ok := ctx.Deadline(); ok && end.Before(w.until) {
		w.until = end
	}
	first := wait
	if w.session != nil {
		first = min(wait, groupWait)
	}
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return outcome{}, &driver.Error{Kind: driver.Closed}
	}
	q.waiters = append(q.waiters, w)
	q.dispatch(now)
	if !w.done {
		if wait <= 0 {
			w.once = true
			q.startPoll(min(w.max, maxEntries), q.minPoll, w)
		} else {
			q.demand(now)
		}
	}
	q.mu.Unlock()
	var timeout <-chan time.Time
	if wait > 0 {
		timer := time.NewTimer(first)
		defer timer.Stop()
		timeout = timer.C
	}
	for {
		select {
		case o := <-w.result:
			return o, o.err
		case <-ctx.Done():
			if q.withdraw(w) {
				return outcome{}, ctx.Err()
			}
		case <-timeout:
			if rest := q.yields(w); rest > 0 {
				timeout = time.After(rest)
				continue
			}
			if q.withdraw(w) {
				return outcome{}, nil
			}
		}
		// Served in the last moment.
		o := <-w.result
		return o, o.err
	}
}

// yields marks a session's waiter, and returns how much of its wait is left.
func (q *queue) yields(w *waiter) time.Duration {
	now := time.Now()
	rest := w.deadline.Sub(now)
	if rest <= 0 {
		return 0
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	w.yields = true
	q.dispatch(now)
	return rest
}

// withdraw takes a waiter off the list; false: it is already served.
func (q *queue) withdraw(w *waiter) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if w.done {
		return false
	}
	w.done = true
	for i, x := range q.waiters {
		if x == w {
			q.waiters = append(q.waiters[:i], q.waiters[i+1:]...)
			break
		}
	}
	return true
}

// dispatch serves the waiters for which there is a message, in order.
func (q *queue) dispatch(now time.Time) {
	if q.closed {
		return
	}
	q.expire(now)
	kept := q.waiters[:0]
	for _, w := range q.waiters {
		if !w.done && !q.serve(w, now) {
			kept = append(kept, w)
		}
	}
	clear(q.waiters[len(kept):])
	q.waiters = kept
}

// demand starts as many shared polls as the waiters need. They ask for no more messages
// than calls wait for: a message that is locked here is locked for every other process. For
// the same reason they wait no longer than the calls that no poll under way is enough for.
func (q *queue) demand(now time.Time) {
	if q.closed {
		return
	}
	want, sessions := 0, 0
	longest := time.Duration(0)
	for _, w := range q.waiters {
		if w.once || !now.Before(w.until) { // it is about to end
			continue
		}
		if w.accept || w.session != nil {
			sessions++
		} else if want += min(w.max, maxEntries); want <= q.asked {
			continue
		}
		longest = max(longest, w.until.Sub(now))
	}
	if sessions > 0 {
		want += max(sessions, q.broker.o.SessionBatch)
	}
	seconds := int32((min(max(longest, time.Second), q.broker.o.Poll) + time.Second - 1) / time.Second) //nolint:gosec // G115: at most 20
	for q.asked < want {
		q.startPoll(min(want-q.asked, maxEntries), seconds, nil)
	}
}

// startPoll asks SQS for n messages on a goroutine of the queue. own is the one
// waiter that the poll is for; nil means it is shared.
func (q *queue) startPoll(n int, seconds int32, own *waiter) {
	if own == nil {
		q.asked += n
	}
	q.work.Add(1)
	go func() {
		defer q.work.Done()
		q.poll(n, seconds, own)
	}()
}

func (q *queue) poll(n int, seconds int32, own *waiter) {
	in := &sqs.ReceiveMessageInput{
		QueueUrl:                    aws.String(q.url),
		MaxNumberOfMessages:         int32(n),                    //nolint:gosec // G115: at most 10
		VisibilityTimeout:           int32(q.lock / time.Second), //nolint:gosec // G115: at most 43200
		WaitTimeSeconds:             seconds,
		MessageAttributeNames:       []string{"All"},
		MessageSystemAttributeNames: systemAttributes,
	}
	if q.fifo {
		// A request that the SDK repeats brings the same messages again, where
		// the answer to the first was lost.
		in.ReceiveRequestAttemptId = aws.String(rand.Text())
	}
	const op = "ReceiveMessage"
	ctx, cancel := context.WithTimeout(q.ctx, time.Duration(seconds)*time.Second+pollGrace)
	defer cancel()
	begin := time.Now()
	out, err := q.broker.api.ReceiveMessage(httpclient.WithAttempt(ctx, time.Duration(seconds)*time.Second+pollAnswer), in)
	end := time.Now()
	var batch []*receipt
	switch {
	case err == nil:
		batch = q.receipts(out, begin, answered(out, end))
		if len(batch) == 0 && own == nil && end.Sub(begin) < emptyPause {
			// Something in between answers without waiting.
			backoff.Sleep(q.ctx, emptyPause)
		}
	case ctx.Err() != nil && q.ctx.Err() == nil:
		err = noAnswer(op)
	default:
		err = q.classify(q.ctx, op, err)
	}
	now := time.Now()
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		q.giveBack(batch)
		return
	}
	defer q.mu.Unlock()
	if own == nil {
		q.asked -= n
	}
	if err != nil {
		q.failWaiters(own, err)
		return
	}
	q.arrive(batch, len(q.waiters) > 0, now)
	q.dispatch(now)
	if own != nil && !own.done {
		own.finish(outcome{})
		q.dispatch(now) // drops it
	}
	q.demand(now)
}

// pollGrace is how much longer than its wait a poll may take, the SDK's repetitions
// included, and pollAnswer is that of one attempt: while a poll is under way on a
// connection that has died no other is started in its place.
const (
	pollGrace  = 40 * time.Second
	pollAnswer = 5 * time.Second
)

// emptyPause bounds how often a poll that was to wait and did not is repeated.
const emptyPause = 100 * time.Millisecond

// failWaiters ends the waits that a poll failed: own's, or all that share polls.
func (q *queue) failWaiters(own *waiter, err error) {
	for _, w := range q.waiters {
		if !w.done && (own == nil && !w.once || w == own) {
			w.finish(outcome{err: err})
		}
	}
	q.dispatch(time.Now()) // drops them
}

// answered returns when the answer began to arrive, if the SDK says it: ten
// large messages take their time on a slow line, while their locks run.
func answered(out *sqs.ReceiveMessageOutput, end time.Time) time.Time {
	if at, ok := awsmiddleware.GetResponseAt(out.ResultMetadata); ok && at.Before(end) {
		return at
	}
	return end
}

// receipts decodes an answer. A lock began when SQS chose the message, which was
// after begin, the request, and before end, the answer: a short while is taken
// off for the way back.
func (q *queue) receipts(out *sqs.ReceiveMessageOutput, begin, end time.Time) []*receipt {
	since := end.Add(-min(time.Second, q.lock/10))
	if since.Before(begin) {
		since = begin
	}
	batch := make([]*receipt, len(out.Messages))
	for i := range out.Messages {
		raw := &out.Messages[i]
		r := &receipt{
			q:        q,
			raw:      raw,
			d:        q.delivery(raw),
			handle:   aws.ToString(raw.ReceiptHandle),
			received: since,
			lease:    since.Add(q.lock),
		}
		key := r.handle
		if q.fifo {
			key = system(raw, "MessageGroupId")
		}
		r.g = &group{key: key}
		r.d.Receipt = r
		batch[i] = r
	}
	return batch
}

// Receive implements driver.Source. On a FIFO queue it hands out one message of
// a group at a time: the next follows when that is settled. wait 0 is SQS's short
// poll, which may miss messages that a longer wait would find.
func (q *queue) Receive(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
	return q.receive(ctx, &waiter{max: max}, wait)
}

func (q *queue) receive(ctx context.Context, w *waiter, wait time.Duration) ([]*driver.Delivery, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if w.max < 1 {
		return nil, driver.Errorf(driver.Invalid, "receiving %d messages: ask for 1 or more", w.max)
	}
	deadline := time.Now().Add(wait)
	for {
		o, err := q.await(ctx, w, wait)
		if err != nil || len(o.receipts) == 0 {
			return nil, err
		}
		if d := q.handOut(ctx, o.receipts); len(d) > 0 {
			return d, nil
		}
		// All that came turned out to be lost while it waited here.
		wait = max(0, time.Until(deadline))
		w = &waiter{session: w.session, max: w.max}
	}
}

// handOut renews the locks that are half over, because their messages waited
// here, and returns what is still locked.
func (q *queue) handOut(ctx context.Context, rs []*receipt) []*driver.Delivery {
	now := time.Now()
	var stale []*receipt
	q.mu.Lock()
	for _, r := range rs {
		if r.g.owner == nil && r.lease.Sub(now) < q.lock/2 {
			stale = append(stale, r)
		}
	}
	q.mu.Unlock()
	if len(stale) > 0 {
		_ = q.extend(ctx, stale) // what fails keeps the rest of its lock
	}
	out := make([]*driver.Delivery, 0, len(rs))
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, r := range rs {
		if r.state != held {
			continue
		}
		r.d.LockedUntil = r.lease
		if s := r.g.owner; s != nil {
			r.d.LockedUntil = s.until
		}
		out = append(out, r.d)
	}
	return out
}
