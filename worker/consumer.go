package worker

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/observe"
)

// consumer is one queue of a Pool. Invariant: it fetches no more messages than it holds
// slots for, so that no message waits for a handler while its lock runs.
type consumer struct {
	pool     *Pool
	receiver *queue.Receiver
	handler  Handler
	o        HandleOptions // resolved
	rules    rules
	caps     driver.Capabilities
	name     string // of the queue
	tracks   bool   // it has claims in a replay store
	log      *slog.Logger
	observer observe.Scope

	share    *share
	breaker  *backoff.Breaker // of the calls to the broker
	failures *failureLog
	isolated *isolation
	wait     time.Duration // of the fetcher after an error, 0 while all is well
	missing  time.Time     // since when the queue is not found; zero if it was found

	work chan job // to a worker that is free; closed when nothing is fetched any more

	// Set by Run.
	base      context.Context // of the handlers
	renewer   *renewer
	deadlines deadlines
}

func newConsumer(p *Pool, r *queue.Receiver, h Handler, o *HandleOptions) (*consumer, error) {
	client := r.Client().Options()
	c := &consumer{
		pool: p, receiver: r, caps: r.Capabilities(), name: r.Queue(), log: client.Logger,
		observer: observe.NewScope(client.Observer, observe.Source{Queue: r.Queue(), Environment: client.Environment}),
		failures: newFailureLog(),
		work:     make(chan job),
	}
	c.tracks = client.Crypto.TrackReplays
	if own := r.Options().Crypto; own != nil {
		c.tracks = own.TrackReplays
	}
	if o != nil {
		c.o = *o
	}
	if err := c.o.resolve(r); err != nil {
		return nil, err
	}
	c.rules = rules{retry: c.o.Retry, maxDeliveries: c.o.MaxDeliveries, maxDelay: c.caps.MaxDelay, spare: c.spare()}
	for i := len(p.o.Middleware) - 1; i >= 0; i-- {
		h = p.o.Middleware[i](h)
	}
	c.handler = h
	limit := p.o.Concurrency
	if c.o.Concurrency > 0 {
		limit = min(limit, c.o.Concurrency)
	}
	c.isolated = newIsolation(limit + p.o.Concurrency)
	c.share = newShare(c.o.Weight, limit)
	var err error
	c.breaker, err = c.newBreaker(p.o.Breaker)
	return c, err
}

// spare is rules.spare. If messages live for a limited time, all deliveries fit into half of
// it.
func (c *consumer) spare() time.Duration {
	switch limit := c.receiver.RetryLimit(); {
	case c.caps.ReleaseUncounted:
		return 0
	case limit > 0:
		return min(maxRetry, limit/2/time.Duration(c.o.MaxDeliveries))
	}
	return maxRetry
}

// newBreaker returns the breaker of the calls to the broker, which tells of its changes.
func (c *consumer) newBreaker(o backoff.BreakerOptions) (*backoff.Breaker, error) {
	if o.Open == 0 && o.FirstOpen == 0 {
		o.FirstOpen, o.Open = firstOpen, maxOpen
	}
	changed := o.OnChange
	o.OnChange = func(s backoff.State) {
		ctx := context.Background()
		c.observer.Breaker(ctx, c.observer.Source, observe.Breaker{State: string(s)})
		c.log.LogAttrs(ctx, slog.LevelWarn, "Circuit breaker changed", slog.String("queue", c.name), slog.String("state", string(s)))
		if changed != nil {
			changed(s)
		}
	}
	return backoff.NewBreaker(&o)
}

// begin prepares the consumer for handlers that run in base.
func (c *consumer) begin(base context.Context) {
	c.base = base
	c.deadlines.base = base
	c.renewer = newRenewer(base, c.receiver, c.log)
}

// fetch receives until ctx ends, and starts a handler for each message. Its error is
// one that no wait will cure.
func (c *consumer) fetch(ctx context.Context) error {
	if c.caps.ReceiveBatch > 0 && !c.o.Sessions && c.o.Downstream == nil {
		return newParallelFetch(ctx, c).fetch() // a downstream is tested by one message at a time
	}
	want := 1 // and so it stays for sessions: one slot each
	for ctx.Err() == nil {
		limit, test, ok := c.ready(ctx)
		if !ok {
			continue
		}
		n, err := c.pool.slots.acquire(ctx, c.share, min(want, limit))
		if err != nil {
			test.Unused()
			return nil // ctx ended
		}
		call, wait, allowed := c.breaker.Allow()
		if !allowed {
			test.Unused()
			c.pool.slots.release(c.share, n)
			backoff.Sleep(ctx, wait)
			continue
		}
		if c.o.Sessions {
			err = c.fetchSession(ctx, test)
		} else {
			var got int
			var suspects bool
			got, suspects, err = c.fetchMessages(ctx, n, test)
			// As many as came, and room to grow: an idle queue holds one slot.
			switch want = max(1, got); {
			case suspects:
				want = 1 // the next may be one, too, and would be given back
			case got == n:
				want = min(2*n, c.o.Prefetch)
			}
		}
		wait, fatal := c.fetched(ctx, &call, err)
		if fatal != nil {
			return fatal
		}
		backoff.Sleep(ctx, wait)
	}
	return nil
}

// minDownstreamWait keeps a breaker that is about to let a call through from being
// asked in a busy loop.
const minDownstreamWait = 10 * time.Millisecond

// ready waits while the handlers' downstream is known to fail, and says how many
// messages may be fetched. If the breaker is half open, that is one, and test travels
// with it: until it is handled no other is fetched, which would only be given back
// untried.
func (c *consumer) ready(ctx context.Context) (limit int, test backoff.Permit, ok bool) {
	b := c.o.Downstream
	if b == nil {
		return c.o.Prefetch, backoff.Permit{}, true
	}
	permit, wait, allowed := b.Allow()
	if !allowed {
		backoff.Sleep(ctx, max(wait, minDownstreamWait))
		return 0, backoff.Permit{}, false
	}
	if !permit.Test() || c.asksInSession() {
		permit.Unused()
		return c.o.Prefetch, backoff.Permit{}, true
	}
	return 1, permit, true
}

// asksInSession reports whether it is the sessions that ask the breaker of the downstream,
// each before it fetches its next message: on a broker without a delay they are held while a
// message waits, and the test would be kept for another session, which might not come.
func (c *consumer) asksInSession() bool {
	return c.o.Sessions && c.caps.AbandonDelay == driver.None
}

const (
	firstOpen      = time.Second            // of the breaker: a short outage is over in seconds
	maxOpen        = 8 * time.Second        // of the breaker: a long one too; one call in 8 s burdens no broker
	firstFetchWait = 100 * time.Millisecond // bound of the wait after a first error
	maxFetchWait   = maxOpen                // and of any other
)

// fetched tells the breaker how a call to the broker ended, and returns how long the next
// should wait, or an error that ends the consumer.
func (c *consumer) fetched(ctx context.Context, call *backoff.Permit, err error) (time.Duration, error) {
	switch {
	case err == nil:
		call.Succeeded()
		c.wait, c.missing = 0, time.Time{}
		return 0, nil
	case ctx.Err() != nil:
		call.Unused()
		return 0, nil
	case receivingWaited(err):
		call.Unused() // not the broker's fault
		return 0, nil
	case errors.Is(err, queue.ErrClosed), c.isMissing(err), errors.Is(err, errors.ErrUnsupported), errors.Is(err, queue.ErrInvalidOptions):
		call.Unused()
		return 0, wrap("receive", c.name, err)
	}
	call.Failed()
	c.wait = min(max(2*c.wait, firstFetchWait), maxFetchWait)
	wait := max(backoff.Exponential{First: c.wait, Max: maxFetchWait}.Delay(1), retryAfter(err))
	c.log.LogAttrs(ctx, slog.LevelError, "Receiving failed",
		slog.String("queue", c.name), slog.String("error", err.Error()), slog.Duration("retry_in", wait))
	return wait, nil
}

// missingFor is how long a queue may be missing: one that is created anew is not found for
// a minute (SQS API reference, CreateQueue and DeleteQueue).
const missingFor = time.Minute

// isMissing reports whether err says that the queue is not found, for missingFor by now.
func (c *consumer) isMissing(err error) bool {
	if !errors.Is(err, queue.ErrQueueNotFound) {
		c.missing = time.Time{}
		return false
	}
	now := time.Now()
	if c.missing.IsZero() {
		c.missing = now
	}
	return now.Sub(c.missing) >= missingFor
}

// receivingWaited reports whether the receiver found something to be away other than
// the broker, and has waited for it already.
func receivingWaited(err error) bool {
	return errors.Is(err, queue.ErrReceivingPaused) || errors.Is(err, queue.ErrKeyProvider) || errors.Is(err, queue.ErrReplayStore)
}

// retryAfter is how long the broker asked to wait; 0 if it did not.
func retryAfter(err error) time.Duration {
	var e *queue.Error
	if errors.As(err, &e) {
		return e.RetryAfter
	}
	return 0
}

// fetchMessages receives up to n messages, for which n slots are taken. Suspects says that
// there were messages that had to be handled alone: they were, before it returns.
func (c *consumer) fetchMessages(ctx context.Context, n int, test backoff.Permit) (got int, suspects bool, err error) {
	got, alone, err := c.receive(ctx, n, test)
	c.handleAlone(ctx, alone)
	return got, len(alone) > 0, err
}

// receive receives up to n messages, for which n slots are taken, and begins to handle
// them. It returns those that have to be handled alone; each holds its slot.
func (c *consumer) receive(ctx context.Context, n int, test backoff.Permit) (got int, alone []job, err error) {
	batch, err := c.receiver.Fetch(ctx, n)
	if errors.Is(err, queue.ErrNoMessage) {
		err = nil // the broker answered: an idle queue is no failure
	}
	c.pool.slots.release(c.share, n-len(batch.Deliveries))
	if len(batch.Deliveries) == 0 {
		test.Unused()
	}
	for i, d := range batch.Deliveries {
		j := job{delivery: d}
		if i == 0 {
			j.permit = test
		}
		if c.suspects(d) {
			alone = c.await(alone, j)
		} else {
			c.dispatch(j)
		}
	}
	return len(batch.Deliveries) + len(batch.Rejected), alone, err
}

// await puts j behind those that are to be handled alone, or gives it back if there is one
// already: meanwhile another process can handle it. On a broker that counts a release as a
// delivery none is given back: each waits for its turn.
func (c *consumer) await(alone []job, j job) []job {
	if len(alone) > 0 && c.caps.ReleaseUncounted {
		c.decline(j)
		return alone
	}
	return append(alone, j)
}

// decline gives a message back that no handler saw, and its slot.
func (c *consumer) decline(j job) {
	j.permit.Unused()
	c.giveBack(j.delivery)
	c.pool.slots.release(c.share, 1)
}

// suspects reports whether d is to be handled alone.
func (c *consumer) suspects(d *queue.Delivery) bool {
	return c.failures.suspect(d.ID, d.Count) && !c.isolated.trusts()
}

// dispatch begins to handle one message, which holds one slot.
func (c *consumer) dispatch(j job) {
	c.isolated.enter(context.Background()) // at once: the fetcher waits while one is handled alone
	select {
	case c.work <- j:
	default: // no worker is free
		c.pool.handlers.Go(func() { c.worker(j) })
	}
}

// handleAlone handles messages, of which each holds one slot, while no other of the queue
// is handled. It returns when each is settled, or has had its time.
func (c *consumer) handleAlone(ctx context.Context, jobs []job) {
	if len(jobs) == 0 {
		return
	}
	var turns sync.WaitGroup
	for _, j := range jobs {
		turns.Add(1)
		over := sync.OnceFunc(turns.Done)
		c.pool.handlers.Go(func() {
			defer over()
			defer c.pool.slots.release(c.share, 1)
			if turn := c.isolate(ctx, j, messageLock{j.delivery}); turn != nil {
				defer turn.leave()
				turn.limit(c.isolationTime(), over)
				c.handle(j, nil)
			}
		})
	}
	turns.Wait()
}

// isolationTime is how long a message is handled alone: until a handler that heeds the end of
// its context has returned.
func (c *consumer) isolationTime() time.Duration { return c.o.MaxProcessing + c.pool.o.CancelGrace }

// isolate waits until a message may be handled alone, and extends its lock l meanwhile. If
// ctx ends first it gives the message back and returns nil.
func (c *consumer) isolate(ctx context.Context, j job, l lock) *turn {
	waiting := c.keepWaiting(j, l)
	turn := c.isolated.enterAlone(ctx)
	if turn != nil && !turn.precede(ctx, c.pool.first) {
		turn.giveWay()
		turn = nil
	}
	c.renewer.drop(waiting)
	if turn == nil {
		j.permit.Unused()
		c.giveBack(j.delivery)
	}
	return turn
}

// keepWaiting extends the lock l of a message that waits to be handled, until the lease is
// dropped. If the lock is lost, handle finds that out.
func (c *consumer) keepWaiting(j job, l lock) *lease {
	x := &lease{lock: l, cancel: func(error) {}, id: j.delivery.ID}
	c.renewer.keep(x, time.Now())
	return x
}

// worker handles j and then what comes, until the consumer stops fetching. There are as
// many as were ever busy at once; each is the goroutine of one message after the other,
// so that their stacks need not grow anew.
func (c *consumer) worker(j job) {
	s := &slot{c: c}
	for ok := true; ok; j, ok = <-c.work {
		c.handleAmongOthers(j, s)
	}
}

// handleAmongOthers handles one message, which holds one slot.
func (c *consumer) handleAmongOthers(j job, s *slot) {
	defer s.leave()
	defer c.isolated.leave()
	c.handle(j, s)
}

// handle handles one message. s may be nil.
func (c *consumer) handle(j job, s *slot) {
	now := time.Now()
	if until := j.delivery.HeldUntil(); !until.IsZero() && !now.Before(until) {
		j.permit.Unused()
		c.giveBack(j.delivery) // another receiver has it by now
		return
	}
	ctx, cancel := context.WithCancelCause(c.base)
	defer cancel(nil)
	r := c.start(ctx, now, cancel, j, messageLock{j.delivery})
	r.slot = s
	r.do()
}
