package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/observe"
)

// lane is one queue of a Processor.
type lane struct {
	p       *Processor
	r       *Receiver
	h       Handler
	o       HandleOptions
	share   *share
	keeper  *keeper
	breaker *backoff.Breaker
	tries   *tries
	backoff time.Duration // of the fetcher, 0 while all is well

	work chan *Delivery // to a worker that is free; closed when nothing is fetched any more

	base        context.Context // of the handlers; set by Run
	settleMu    sync.Mutex      // guards what follows
	settleCtx   context.Context
	settleRenew time.Time
}

func newLane(p *Processor, r *Receiver, h Handler, o *HandleOptions) (*lane, error) {
	l := &lane{p: p, r: r, tries: newTries(), work: make(chan *Delivery)}
	if o != nil {
		l.o = *o
	}
	if err := l.o.resolve(r); err != nil {
		return nil, err
	}
	for i := len(p.o.Middleware) - 1; i >= 0; i-- {
		h = p.o.Middleware[i](h)
	}
	l.h = h
	most := p.o.Concurrency
	if l.o.Concurrency > 0 {
		most = min(most, l.o.Concurrency)
	}
	l.share = newShare(l.o.Weight, most)
	bo := p.o.Breaker
	changed := bo.OnChange
	bo.OnChange = func(s backoff.State) {
		r.obs.Breaker(context.Background(), r.obs.Source, observe.Breaker{State: string(s)})
		r.log.LogAttrs(context.Background(), slog.LevelWarn, "Circuit breaker changed", slog.String("queue", r.queue), slog.String("state", string(s)))
		if changed != nil {
			changed(s)
		}
	}
	var err error
	l.breaker, err = backoff.NewBreaker(&bo)
	return l, err
}

// fetch receives until ctx ends, and starts a handler for each message in the
// context base. Its error is one that no wait will cure.
func (l *lane) fetch(ctx, base context.Context) error {
	want := 1
	for ctx.Err() == nil {
		most, test, ok := l.ready(ctx)
		if !ok {
			continue
		}
		if l.o.Sessions {
			want, most = 1, 1
		}
		n, err := l.p.slots.acquire(ctx, l.share, min(want, most))
		if err != nil {
			test.withdraw()
			return nil // ctx ended
		}
		permit, wait, allowed := l.breaker.Allow()
		if !allowed {
			test.withdraw()
			l.p.slots.release(l.share, n)
			sleepUntil(ctx, time.Now().Add(wait))
			continue
		}
		if l.o.Sessions {
			err = l.fetchSession(ctx, base, test)
		} else {
			var got int
			got, err = l.fetchMessages(ctx, base, n, test)
			// As many as came, and room to grow: an idle queue holds one slot.
			want = max(1, got)
			if got == n {
				want = min(2*n, l.o.Prefetch)
			}
		}
		if fatal := l.fetched(ctx, &permit, err); fatal != nil {
			return fatal
		}
	}
	return nil
}

// ready waits while the handlers' downstream is known to fail, and says how many
// messages may be fetched for it. Where it is to be found out whether it still
// fails, that is one, which takes test along: until it is handled no other is
// fetched, which could only be given back untried.
func (l *lane) ready(ctx context.Context) (most int, test *downstreamTest, ok bool) {
	b := l.o.Downstream
	if b == nil {
		return l.o.Prefetch, nil, true
	}
	permit, wait, allowed := b.Allow()
	if !allowed {
		sleepUntil(ctx, time.Now().Add(max(wait, 10*time.Millisecond)))
		return 0, nil, false
	}
	if !permit.Test() {
		permit.Unused()
		return l.o.Prefetch, nil, true
	}
	return 1, &downstreamTest{permit}, true
}

// downstreamTest is the one call that a half-open Breaker has let through. It is
// carried to the handler that makes it; nil is none.
type downstreamTest struct{ permit backoff.Permit }

// withdraw gives the call back that was not made.
func (t *downstreamTest) withdraw() {
	if t != nil {
		t.permit.Unused()
	}
}

// fetched tells the breaker how a call to the broker ended, and waits where the
// next should not follow at once. It returns an error that ends the lane.
func (l *lane) fetched(ctx context.Context, permit *backoff.Permit, err error) error {
	switch {
	case err == nil:
		permit.Succeeded()
		l.backoff = 0
		return nil
	case ctx.Err() != nil:
		permit.Unused()
		return nil
	case errors.Is(err, ErrReceivingPaused), errors.Is(err, ErrKeyProvider), errors.Is(err, ErrReplayStore):
		permit.Unused() // not the broker's fault, and Receive has waited
		return nil
	case errors.Is(err, ErrClosed), errors.Is(err, ErrQueueNotFound), errors.Is(err, errors.ErrUnsupported), errors.Is(err, ErrInvalidOptions):
		permit.Unused()
		return wrap("receive", l.r.queue, err)
	}
	permit.Failed()
	const first, most = 100 * time.Millisecond, 30 * time.Second
	l.backoff = min(max(2*l.backoff, first), most)
	wait := backoff.Exponential{First: l.backoff, Max: most}.Delay(1)
	var d *driver.Error
	if errors.As(err, &d) && d.RetryAfter > wait {
		wait = d.RetryAfter
	}
	l.r.log.LogAttrs(ctx, slog.LevelError, "Receiving failed",
		slog.String("queue", l.r.queue), slog.String("error", err.Error()), slog.Duration("retry_in", wait))
	sleepUntil(ctx, time.Now().Add(wait))
	return nil
}

// fetchMessages receives up to n messages, for which n slots are taken.
func (l *lane) fetchMessages(ctx, base context.Context, n int, test *downstreamTest) (got int, err error) {
	b, err := l.r.Fetch(ctx, n)
	batch, rejected := b.Deliveries, b.Rejected
	l.p.slots.release(l.share, n-len(batch))
	if len(batch) == 0 {
		test.withdraw()
	} else {
		batch[0].test = test
	}
	for _, d := range batch {
		select {
		case l.work <- d:
		default: // nobody is free
			l.p.handlers.Go(func() { l.worker(base, d) })
		}
	}
	return len(batch) + len(rejected), err
}

// worker handles d and then what comes, until the lane stops fetching. There are
// as many as were ever busy at once; each is the goroutine of one message after
// the other, so that their stacks need not grow anew.
func (l *lane) worker(base context.Context, d *Delivery) {
	for ok := true; ok; d, ok = <-l.work {
		l.run(base, d)
	}
}

// run handles one message, which holds one slot.
func (l *lane) run(base context.Context, d *Delivery) {
	defer l.p.slots.release(l.share, 1)
	now := time.Now()
	if d.expired(now) {
		d.test.withdraw()
		release(base, []*Delivery{d}) // somebody else has it by now
		return
	}
	ctx, end := context.WithCancelCause(base)
	defer end(nil)
	l.handle(ctx, d, l.keeper.keepDelivery(d, now, l.o.MaxProcessing, end))
}

// handle runs the handler for d, whose lock k keeps, and settles by its outcome.
func (l *lane) handle(ctx context.Context, d *Delivery, k *kept) outcome {
	ctx = d.Context(ctx)
	r := l.r
	pctx, end := r.obs.Start(ctx, observe.Operation{
		Kind: observe.Process, Count: 1, MessageID: d.raw.ID, SessionID: d.raw.SessionID,
		Encrypted: d.Encrypted, KeyID: d.KeyID, Deliveries: d.Count,
	})
	returned := false
	var took time.Duration
	var err error
	conclude := func() outcome { return l.conclude(ctx, pctx, d, k, took, err, end) }
	defer func() {
		if !returned { // it ended its goroutine: the message must not stay locked
			err = &panicError{value: goexit}
			conclude()
		}
	}()
	took, err = l.timed(pctx, d)
	returned = true
	return conclude()
}

// conclude settles d by what its handler returned, and tells of it. ctx is the
// handler's, pctx that of the operation which end ends.
func (l *lane) conclude(ctx, pctx context.Context, d *Delivery, k *kept, took time.Duration, err error, end func(observe.Result)) outcome {
	r := l.r
	out := l.judge(ctx, d, err)
	l.keeper.drop(k)
	k.settling.values = pctx
	out = l.settle(&k.settling, d, out)
	r.obs.Handled(pctx, r.obs.Source, observe.Handled{Took: took, Disposition: out.name, Err: err})
	if out.name == driver.Abandoned {
		r.obs.Retried(pctx, r.obs.Source, observe.Retried{Delay: out.delay})
	}
	end(observe.Result{Err: err, Count: 1, Disposition: out.name})
	if err != nil {
		l.failed(pctx, d, out, err)
	}
	return out
}

// timed is call, and how long that took where there is an Observer to be told.
func (l *lane) timed(ctx context.Context, d *Delivery) (took time.Duration, err error) {
	if !l.r.obs.Active() {
		return 0, l.call(ctx, d)
	}
	l.r.obs.InFlight(ctx, l.r.obs.Source, observe.InFlight{Delta: 1})
	defer l.r.obs.InFlight(ctx, l.r.obs.Source, observe.InFlight{Delta: -1})
	begin := time.Now()
	err = l.call(ctx, d)
	return time.Since(begin), err
}

// call runs the handler. A panic becomes an error; its value, which may hold
// payload, goes to OnError only.
func (l *lane) call(ctx context.Context, d *Delivery) (err error) {
	b := l.o.Downstream
	if b != nil {
		var permit backoff.Permit
		if d.test != nil {
			permit = d.test.permit
		} else {
			var wait time.Duration
			var ok bool
			if permit, wait, ok = b.Allow(); !ok {
				return &untriedError{delay: max(wait, time.Second)}
			}
		}
		defer func() {
			var permanent *permanentError
			switch {
			case err == nil, errors.As(err, &permanent):
				permit.Succeeded() // the message's fault, not the service's
			case ctx.Err() != nil:
				permit.Unused()
			default:
				permit.Failed()
			}
		}()
	}
	returned := false
	defer func() {
		switch v := recover(); {
		case v != nil:
			err = &panicError{value: v, stack: debug.Stack()}
		case !returned:
			err = &panicError{value: goexit} // for the breaker: nobody else gets it
		}
	}()
	err = l.h.Handle(ctx, d)
	returned = true
	return err
}

// goexit is the value of a panicError of a handler that called runtime.Goexit, as
// FailNow of a test does.
const goexit = "runtime.Goexit was called"

// untriedError is the outcome of a message that no handler saw, because those
// before it found its downstream away.
type untriedError struct{ delay time.Duration }

func (e *untriedError) Error() string   { return fmt.Sprintf("%v: not tried", backoff.ErrOpen) }
func (e *untriedError) Is(t error) bool { return t == backoff.ErrOpen }

// panicError is what OnError gets of a panic.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string   { return fmt.Sprintf("handler panicked: %v\n%s", e.value, e.stack) }
func (e *panicError) Is(t error) bool { return t == ErrPanic }

// failed tells log and OnError of a handler's error.
func (l *lane) failed(ctx context.Context, d *Delivery, out outcome, err error) {
	if l.r.log.Enabled(ctx, slog.LevelWarn) {
		attrs := []slog.Attr{
			slog.String("queue", l.r.queue), slog.String("message_id", d.raw.ID), slog.Int("delivery", d.Count),
			slog.String("disposition", string(out.name)), slog.Bool("panic", errors.Is(err, ErrPanic)),
		}
		if out.name == driver.Abandoned {
			attrs = append(attrs, slog.Duration("delay", out.delay))
		}
		if text := safeText(err); text != "" {
			attrs = append(attrs, slog.String("error", text))
		}
		l.r.log.LogAttrs(ctx, slog.LevelWarn, "Message handling failed", attrs...)
	}
	l.onError(ctx, d, err)
}

func (l *lane) onError(ctx context.Context, d *Delivery, err error) {
	if f := l.p.o.OnError; f != nil {
		f(ctx, d, err)
	}
}
