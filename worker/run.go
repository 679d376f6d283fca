package worker

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/observe"
)

// job is a message on its way to a handler. permit is the test of a half-open
// downstream that the message was fetched for; the zero Permit if it was not.
type job struct {
	delivery *queue.Delivery
	permit   backoff.Permit
}

// run is one call of a handler for one message: start, call, finish. Once it has
// started it finishes exactly once, also if the handler ends its goroutine.
type run struct {
	job
	c    *consumer
	slot *slot // nil if it is not given back before the message is settled
	role role
	wait time.Duration // of an untried message, until the downstream is asked again

	// What the delivery says, which the handler may change.
	id    string
	count int

	ctx  context.Context // ends when going on is of no use
	span context.Context // ctx in the operation that is observed: the handler's
	end  func(observe.Result)
	took time.Duration

	kept *kept
}

// kept is what other goroutines may still refer to when the run is over: the renewer,
// and a driver that settles. It is one allocation; the run itself needs none.
type kept struct {
	lease lease
	ctx   settleContext // of settling the message
}

// start makes a run of j, at the time now. cancel ends ctx. The lease of the run keeps
// l; it is nil if another lease does.
func (c *consumer) start(ctx context.Context, now time.Time, cancel context.CancelCauseFunc, j job, l lock) run {
	d := j.delivery
	r := run{job: j, c: c, id: d.ID, count: d.Count, ctx: d.Context(ctx)}
	r.span, r.end = c.observer.Start(r.ctx, observe.Operation{
		Kind: observe.Process, Count: 1, MessageID: d.ID, SessionID: d.SessionID,
		Encrypted: d.Encrypted, KeyID: d.KeyID, Deliveries: d.Count,
	})
	r.kept = &kept{lease: lease{lock: l, cancel: cancel, id: d.ID, limit: now.Add(c.o.MaxProcessing), grace: c.pool.o.CancelGrace}}
	c.renewer.keep(&r.kept.lease, now)
	return r
}

// do calls the handler, settles the message, and returns what became of it.
func (r *run) do() settlement {
	returned := false
	defer func() {
		if !returned { // it ended its goroutine: the message must not stay locked
			r.finish(&panicError{value: goexit})
		}
	}()
	err := r.timed()
	returned = true
	if err == nil {
		r.slot.handled()
	}
	return r.finish(err)
}

// finish settles the message by what its handler returned, and tells of it.
func (r *run) finish(err error) settlement {
	c := r.c
	now := time.Now()
	s := decide(result{err: err, cause: context.Cause(r.ctx), role: r.role, wait: r.wait, count: r.count}, c.rules)
	if s.disposition != driver.Completed {
		c.failures.note(r.id, r.count)
	}
	if s.counts {
		c.failures.noteFailure(r.id, now)
	}
	c.renewer.drop(&r.kept.lease)
	r.kept.ctx = settleContext{Context: c.deadlines.next(now), values: r.span}
	s = r.settle(&r.kept.ctx, s)
	switch s.disposition {
	case driver.Completed, driver.DeadLettered:
		c.failures.forget(r.id)
	case driver.Lost:
		c.failures.note(r.id, r.count) // the handler returned
	case driver.Abandoned, driver.Released:
	}
	c.observer.Handled(r.span, c.observer.Source, observe.Handled{Took: r.took, Disposition: s.disposition, Err: s.failure})
	if s.disposition == driver.Abandoned || s.disposition == driver.Released {
		c.observer.Retried(r.span, c.observer.Source, observe.Retried{Delay: s.delay, Planned: s.failure == nil})
	}
	r.end(observe.Result{Err: s.failure, Count: 1, Disposition: s.disposition})
	if err != nil {
		r.report(s, err)
	}
	return s
}

// attrs describe what a handler returned and what became of its message.
func (r *run) attrs(s settlement, err error) []slog.Attr {
	attrs := []slog.Attr{
		slog.String("queue", r.c.name), slog.String("message_id", r.id), slog.Int("delivery", r.count),
		slog.String("disposition", string(s.disposition)), slog.Bool("panic", errors.Is(err, ErrPanic)),
	}
	if s.disposition == driver.Abandoned || s.disposition == driver.Released {
		attrs = append(attrs, slog.Duration("delay", s.delay))
	}
	if text := publicText(err); text != "" {
		attrs = append(attrs, slog.String("error", text))
	}
	return attrs
}

// report tells log and OnError what a handler returned.
func (r *run) report(s settlement, err error) {
	log := r.c.log
	switch {
	case s.failure != nil && log.Enabled(r.span, slog.LevelWarn):
		log.LogAttrs(r.span, slog.LevelWarn, "Message handling failed", r.attrs(s, err)...)
	case s.failure == nil && log.Enabled(r.span, slog.LevelInfo):
		log.LogAttrs(r.span, slog.LevelInfo, "Message put off", r.attrs(s, err)...)
	}
	if r.role != untried && r.role != exceeded { // else no handler returned it
		r.c.onError(r.span, r.delivery, err)
	}
}

func (c *consumer) onError(ctx context.Context, d *queue.Delivery, err error) {
	if f := c.pool.o.OnError; f != nil {
		f(ctx, d, err)
	}
}

// timed is guarded, and measures it if an Observer is to be told.
func (r *run) timed() error {
	o := &r.c.observer
	if !o.Active() {
		return r.guarded()
	}
	o.InFlight(r.span, o.Source, observe.InFlight{Delta: 1})
	defer o.InFlight(r.span, o.Source, observe.InFlight{Delta: -1})
	begin := time.Now()
	err := r.guarded()
	r.took = time.Since(begin)
	return err
}

// guarded is call, unless the message came too often, or the downstream of the handlers
// does not let it through.
func (r *run) guarded() (err error) {
	if r.count > r.c.rules.maxDeliveries && r.c.caps.DeadLetter != driver.None {
		r.permit.Unused()
		r.role = exceeded
		return Public(queue.ErrMaxDeliveries)
	}
	b := r.c.o.Downstream
	if b == nil {
		return r.call()
	}
	permit := r.permit
	if !permit.Test() {
		var ok bool
		if permit, r.wait, ok = b.Allow(); !ok {
			r.role = untried
			return backoff.ErrOpen
		}
	}
	if permit.Test() {
		r.role = probe
	}
	err = &panicError{value: goexit} // unless the handler returns
	defer func() {
		var permanent *permanentError
		switch {
		case err == nil, errors.As(err, &permanent):
			permit.Succeeded() // the message's fault, not the service's
		case r.ctx.Err() != nil:
			permit.Unused()
		default:
			permit.Failed()
		}
	}()
	err = r.call()
	return err
}

// call runs the handler. A panic becomes an error; its value, which may hold payload,
// goes to OnError and the Observer only.
func (r *run) call() (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicError{value: v, stack: debug.Stack()}
		}
	}()
	return r.c.handler.Handle(r.span, r.delivery)
}
