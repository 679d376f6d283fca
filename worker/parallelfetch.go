package worker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/queue-runtime/queue/backoff"
)

// parallelFetch fetches for a consumer by several calls side by side, if one brings few messages
// (Capabilities.ReceiveBatch): the rate of one call at a time is a batch a round trip,
// however many slots are free. One goroutine, that of fetch, starts the calls and judges how
// they ended. Each runs on a goroutine of its own, which begins to handle what came.
//
// Invariants: a call asks for as many messages as slots are taken for it. One call waits for
// messages; others wait for surplusWait only, so that an idle queue holds few slots. None is
// under way while a message is handled alone: what it brought would wait with its lock
// running.
type parallelFetch struct {
	c       *consumer
	ctx     context.Context // of the consumer
	results chan received   // room for one of each call

	// Of the goroutine of fetch.
	allowed int             // calls at once, 1 to the capacity of results
	want    int             // messages of the next call
	running int             // calls under way
	short   time.Duration   // before too few free slots are looked at again; 0 = there are enough
	failed  time.Time       // when the last failure was judged
	calls   context.Context // of the calls
	end     context.CancelFunc
	look    context.Context // ends when there is a result to judge at once
	wake    context.CancelFunc
}

// received is how a call ended.
type received struct {
	asked, got int
	begun      time.Time
	alone      []job // to be handled alone
	expired    bool  // surplusWait is over, which says nothing of the broker
	permit     backoff.Permit
	err        error
}

const (
	// surplusWait bounds a call beside another that waits for messages. It is some round
	// trips, so that a call that brings messages rarely ends by it.
	surplusWait = time.Second
	// firstShortWait is how long a call beside another waits for a full batch of free
	// slots before it looks again; each wait is twice the one before. Handlers that end
	// within 2 ms of each other are settled with one request by SQS's driver, and leave
	// their slots together.
	firstShortWait = 4 * time.Millisecond
	maxShortWait   = time.Second // slow handlers: nothing is lost by it, and looking costs little
)

func newParallelFetch(ctx context.Context, c *consumer) *parallelFetch {
	maxCalls := (c.share.limit + c.caps.ReceiveBatch - 1) / c.caps.ReceiveBatch
	p := &parallelFetch{c: c, ctx: ctx, results: make(chan received, maxCalls)}
	p.begin()
	return p
}

// begin starts from one call for one message.
func (p *parallelFetch) begin() {
	p.allowed, p.want, p.short = 1, 1, 0
	p.calls, p.end = context.WithCancel(p.ctx)
	p.look, p.wake = context.WithCancel(p.ctx)
}

// stop ends the calls for good, and returns when they have ended. What was to be handled
// alone goes back.
func (p *parallelFetch) stop() {
	p.end()
	var declined sync.WaitGroup // side by side: a broker that hangs is waited for once
	for _, j := range p.suspend(nil) {
		declined.Go(func() { p.c.decline(j) })
	}
	declined.Wait()
}

// suspend returns when no call is under way, with the messages to be handled alone: those
// that are so already, and those that came meanwhile. Their locks are extended while it
// waits. It ends the calls if that costs no message a delivery; on a broker that counts
// releases they go on, for the Wait of the Receiver at most.
func (p *parallelFetch) suspend(alone []job) []job {
	p.wake()
	if p.c.caps.ReleaseUncounted {
		p.end()
	}
	var waiting []*lease
	keep := func() {
		for _, j := range alone[len(waiting):] {
			waiting = append(waiting, p.c.keepWaiting(j, messageLock{j.delivery}))
		}
	}
	for keep(); p.running > 0; p.running-- {
		r := <-p.results
		r.permit.Unused() // the next call tells
		for _, j := range r.alone {
			alone = p.c.await(alone, j)
		}
		keep()
	}
	for _, x := range waiting {
		p.c.renewer.drop(x)
	}
	p.end()
	return alone
}

// fetch is consumer.fetch.
func (p *parallelFetch) fetch() error {
	defer p.stop()
	for p.ctx.Err() == nil {
		if r, ok := p.next(); ok {
			if fatal := p.judge(&r); fatal != nil {
				return fatal
			}
			continue
		}
		c := p.c
		n, err := c.pool.slots.acquire(p.look, c.share, min(p.want, c.o.Prefetch))
		if err != nil {
			continue // there is a result, or ctx ended
		}
		if p.running > 0 && n < p.want {
			// A request costs the same for few messages as for a batch.
			c.pool.slots.release(c.share, n)
			p.short = min(max(2*p.short, firstShortWait), maxShortWait)
			continue
		}
		permit, wait, allowed := c.breaker.Allow()
		if !allowed {
			c.pool.slots.release(c.share, n)
			backoff.Sleep(p.look, wait)
			continue
		}
		p.start(n, permit)
	}
	return nil
}

// next returns a result. It waits for one while no further call should begin.
func (p *parallelFetch) next() (r received, ok bool) {
	switch {
	case p.running < p.allowed && p.short == 0:
		select {
		case r = <-p.results:
		default:
			return r, false
		}
	case p.running < p.allowed:
		t := time.NewTimer(p.short)
		defer t.Stop()
		select {
		case r = <-p.results:
		case <-t.C:
			return r, false
		case <-p.ctx.Done():
			return r, false
		}
	default:
		select {
		case r = <-p.results:
		case <-p.ctx.Done():
			return r, false
		}
	}
	p.running--
	p.short = 0
	return r, true
}

// start begins a call for n messages.
func (p *parallelFetch) start(n int, permit backoff.Permit) {
	surplus := p.running > 0
	p.running++
	p.short = 0
	calls, wake := p.calls, p.wake
	go func() { // stop waits for it
		ctx, cancel := calls, func() {}
		if surplus {
			ctx, cancel = context.WithTimeout(calls, surplusWait)
		}
		defer cancel()
		r := received{asked: n, begun: time.Now(), permit: permit}
		r.got, r.alone, r.err = p.c.receive(ctx, n, backoff.Permit{})
		r.expired = ctx.Err() != nil && calls.Err() == nil && errors.Is(r.err, context.DeadlineExceeded)
		p.results <- r
		if len(r.alone) > 0 {
			wake()
		}
	}()
}

// judge takes in how a call ended.
func (p *parallelFetch) judge(r *received) error {
	if len(r.alone) > 0 {
		p.c.handleAlone(p.ctx, p.suspend(r.alone))
		p.begin() // the next may be one, too
	}
	if r.expired {
		r.permit.Unused()
		p.adapt(r)
		return nil
	}
	if r.err != nil && r.begun.Before(p.failed) { // with the one that was waited for
		if receivingWaited(r.err) {
			r.permit.Unused()
		} else {
			r.permit.Failed()
		}
		return nil
	}
	wait, fatal := p.c.fetched(p.ctx, &r.permit, r.err)
	switch {
	case fatal != nil:
		return fatal
	case r.err != nil:
		p.allowed, p.want, p.failed = 1, 1, time.Now()
		backoff.Sleep(p.look, wait)
	case len(r.alone) == 0:
		p.adapt(r)
	}
	return nil
}

// adapt says how many calls may be under way, and for how many messages the next one asks.
// Calls that come back full find a backlog: twice as many then catch up in few round trips.
// One that brings nothing says that the backlog ends.
func (p *parallelFetch) adapt(r *received) {
	batch := min(p.c.caps.ReceiveBatch, p.c.o.Prefetch)
	switch {
	case r.got == 0:
		p.allowed = max(1, p.allowed/2)
	case r.asked == batch && 2*r.got >= batch:
		p.allowed = min(2*p.allowed, cap(p.results))
	}
	switch {
	case p.allowed > 1:
		p.want = batch
	case r.got == r.asked:
		p.want = min(2*r.asked, batch)
	default: // as many as came: an idle queue holds one slot
		p.want = max(1, r.got)
	}
}
