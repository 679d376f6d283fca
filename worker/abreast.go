package worker

import (
	"context"
	"errors"
	"time"

	"github.com/queue-runtime/queue/backoff"
)

// abreast fetches for a consumer by several calls side by side, if one brings few messages
// (Capabilities.ReceiveBatch): the rate of one call at a time is a batch a round trip,
// however many slots are free. One goroutine, that of fetch, starts the calls and judges how
// they ended. Each runs on a goroutine of its own, which begins to handle what came.
//
// Invariants: a call asks for as many messages as slots are taken for it. One call waits for
// messages; others wait for surplusWait only, so that an idle queue holds few slots. None is
// under way while a message is handled alone.
type abreast struct {
	c       *consumer
	ctx     context.Context // of the consumer
	results chan received   // room for one of each call

	// Of the goroutine of fetch.
	allowed int             // calls at once, 1 to the capacity of results
	want    int             // messages of the next call
	running int             // calls under way
	short   bool            // there were too few free slots for one more
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
	alone      *job // to be handled alone; nil if there is none
	permit     backoff.Permit
	err        error
}

// surplusWait bounds a call beside another that waits for messages. It is some round trips,
// so that a call that brings messages rarely ends by it.
const surplusWait = time.Second

func newAbreast(ctx context.Context, c *consumer) *abreast {
	most := (c.share.limit + c.caps.ReceiveBatch - 1) / c.caps.ReceiveBatch
	a := &abreast{c: c, ctx: ctx, results: make(chan received, most)}
	a.begin()
	return a
}

// begin starts from one call for one message.
func (a *abreast) begin() {
	a.allowed, a.want, a.short = 1, 1, false
	a.calls, a.end = context.WithCancel(a.ctx)
	a.look, a.wake = context.WithCancel(a.ctx)
}

// stop ends the calls, and returns when they have ended. Messages that were to be handled
// alone go back.
func (a *abreast) stop() {
	a.end()
	a.wake()
	for ; a.running > 0; a.running-- {
		r := <-a.results
		r.permit.Unused()
		if r.alone != nil {
			a.c.decline(*r.alone)
		}
	}
}

// fetch is consumer.fetch.
func (a *abreast) fetch() error {
	defer a.stop()
	for a.ctx.Err() == nil {
		if r, ok := a.next(); ok {
			if fatal := a.judge(&r); fatal != nil {
				return fatal
			}
			continue
		}
		c := a.c
		n, err := c.pool.slots.acquire(a.look, c.share, min(a.want, c.o.Prefetch))
		if err != nil {
			continue // there is a result, or ctx ended
		}
		if a.running > 0 && 2*n < a.want {
			// Many calls for few messages each would cost more requests and gain nothing:
			// slots come free while those under way end.
			c.pool.slots.release(c.share, n)
			a.short = true
			continue
		}
		permit, wait, allowed := c.breaker.Allow()
		if !allowed {
			c.pool.slots.release(c.share, n)
			sleep(a.look, wait)
			continue
		}
		a.start(n, permit)
	}
	return nil
}

// next returns a result. It waits for one while no further call should begin.
func (a *abreast) next() (r received, ok bool) {
	if a.running < a.allowed && !a.short {
		select {
		case r = <-a.results:
		default:
			return r, false
		}
	} else {
		select {
		case r = <-a.results:
		case <-a.ctx.Done():
			return r, false
		}
	}
	a.running--
	a.short = false
	return r, true
}

// start begins a call for n messages.
func (a *abreast) start(n int, permit backoff.Permit) {
	surplus := a.running > 0
	a.running++
	calls, wake := a.calls, a.wake
	go func() { // stop waits for it
		ctx, cancel := calls, func() {}
		if surplus {
			ctx, cancel = context.WithTimeout(calls, surplusWait)
		}
		defer cancel()
		r := received{asked: n, begun: time.Now(), permit: permit}
		r.got, r.alone, r.err = a.c.receive(ctx, n, backoff.Permit{})
		if ctx.Err() != nil && calls.Err() == nil && errors.Is(r.err, context.DeadlineExceeded) {
			r.err = nil // it brought nothing
		}
		a.results <- r
		if r.alone != nil {
			wake()
		}
	}()
}

// judge takes in how a call ended.
func (a *abreast) judge(r *received) error {
	if r.alone != nil {
		a.stop()
		a.c.handleAlone(a.ctx, *r.alone)
		a.begin() // the next may be one, too, and would be given back
	}
	if r.err != nil && r.begun.Before(a.failed) { // with the one that was waited for
		if receivingWaited(r.err) {
			r.permit.Unused()
		} else {
			r.permit.Failed()
		}
		return nil
	}
	wait, fatal := a.c.fetched(a.ctx, &r.permit, r.err)
	switch {
	case fatal != nil:
		return fatal
	case r.err != nil:
		a.allowed, a.want, a.failed = 1, 1, time.Now()
		sleep(a.look, wait)
	case r.alone == nil:
		a.adapt(r)
	}
	return nil
}

// adapt says how many calls may be under way, and for how many messages the next one asks.
// Calls that come back full find a backlog: twice as many then catch up in few round trips.
// One that brings nothing says that the backlog ends.
func (a *abreast) adapt(r *received) {
	batch := min(a.c.caps.ReceiveBatch, a.c.o.Prefetch)
	switch {
	case r.got == 0:
		a.allowed = max(1, a.allowed/2)
	case r.asked == batch && 2*r.got >= batch:
		a.allowed = min(2*a.allowed, cap(a.results))
	}
	switch {
	case a.allowed > 1:
		a.want = batch
	case r.got == r.asked:
		a.want = min(2*r.asked, batch)
	default: // as many as came: an idle queue holds one slot
		a.want = max(1, r.got)
	}
}
