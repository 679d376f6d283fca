package queue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/queue-runtime/queue/backoff"
)

// Defaults of [ProcessorOptions] and [HandleOptions].
const (
	DefaultConcurrency   = 16
	DefaultMaxProcessing = 10 * time.Minute
	DefaultDrainTimeout  = 30 * time.Second
	DefaultCancelGrace   = 5 * time.Second
	DefaultSessionIdle   = 2 * time.Second
	DefaultSessionTurn   = 100
)

// ErrHandlersRunning: Run returned while handlers were still running, although
// their contexts had ended.
var ErrHandlersRunning = errors.New("handlers did not return after their contexts ended")

// ProcessorOptions configure a [Processor].
type ProcessorOptions struct {
	// Concurrency is how many handlers run at once over all queues; at least
	// one for each queue. 0 means 16.
	Concurrency int

	// DrainTimeout is how long handlers may go on when Run's context ends. 0
	// means 30 s.
	DrainTimeout time.Duration

	// CancelGrace is how long Run then waits for handlers whose context it has
	// ended. 0 means 5 s.
	CancelGrace time.Duration

	// Middleware wraps every handler, the first outermost.
	Middleware []Middleware

	// Breaker is for calls to the brokers; each queue has its own.
	Breaker backoff.BreakerOptions

	// OnError is called with each error that a handler returned or panicked
	// with, and each failure to settle, from the goroutine of the handler, whose
	// slot it holds: it must not panic. The library itself logs the text only of
	// errors marked Safe. Nil: not.
	OnError func(ctx context.Context, d *Delivery, err error)
}

// HandleOptions configure one queue of a [Processor].
type HandleOptions struct {
	// Weight is the queue's part of the slots that several queues want. 0 means
	// 1.
	Weight int

	// Concurrency is how many of the queue's messages are handled at once, or
	// of its sessions. 0 means as many as the Processor has.
	Concurrency int

	// Prefetch is how many messages one call to the broker may bring; never
	// more than there are free slots to handle them at once. 0 means 32.
	Prefetch int

	// Sessions makes the queue be received session by session: each in order,
	// one message at a time, by one receiver. It is always so where the broker
	// has no other way (Capabilities.SessionOnly). Brokers that deliver session
	// messages on the queue itself keep their order also without it.
	Sessions bool

	// SessionIdle is how long a session without messages is kept. 0 means 2 s.
	SessionIdle time.Duration

	// SessionTurn is after how many messages a session is given up, so that
	// others have a turn. 0 means 100.
	SessionTurn int

	// MaxProcessing is how long one handler may take. Its lock is renewed until
	// then, and its context ends with ErrMaxProcessing. 0 means 10 minutes.
	MaxProcessing time.Duration

	// Retry says how long a message waits after a failure. Nil: Exponential,
	// within the messages' maximum age where that bounds it.
	Retry backoff.Policy

	// MaxDeliveries is after how many deliveries a message that fails is
	// dead-lettered. 0 means the receiver's.
	MaxDeliveries int

	// Downstream is told how handlers end, and while it is open nothing is
	// fetched: share one among the queues whose handlers call the same service.
	// Nil: none.
	Downstream *backoff.Breaker
}

// Processor receives from queues and runs a handler for each message: it keeps
// the lock while the handler works, settles by what it returns, and retries. It
// is used once: Handle for each queue, then Run.
type Processor struct {
	o     ProcessorOptions
	slots *slots
	lanes []*lane

	handlers sync.WaitGroup

	mu      sync.Mutex // guards what follows
	started bool
	over    bool                    // Shutdown or Close came before Run
	stop    context.CancelFunc      // ends fetching
	hard    context.CancelCauseFunc // ends handlers
	done    chan struct{}           // closed when Run has returned
}

// NewProcessor returns a Processor without queues. o may be nil.
func NewProcessor(o *ProcessorOptions) (*Processor, error) {
	p := &Processor{done: make(chan struct{})}
	if o != nil {
		p.o = *o
	}
	if p.o.Concurrency < 0 || p.o.DrainTimeout < 0 || p.o.CancelGrace < 0 {
		return nil, wrap("new processor", "", invalidOption("ProcessorOptions: no value may be negative"))
	}
	if _, err := backoff.NewBreaker(&p.o.Breaker); err != nil {
		return nil, wrap("new processor", "", invalidOption("%v", err))
	}
	if p.o.Concurrency == 0 {
		p.o.Concurrency = DefaultConcurrency
	}
	if p.o.DrainTimeout == 0 {
		p.o.DrainTimeout = DefaultDrainTimeout
	}
	if p.o.CancelGrace == 0 {
		p.o.CancelGrace = DefaultCancelGrace
	}
	p.slots = &slots{total: p.o.Concurrency}
	return p, nil
}

// Handle makes the processor run h for each message that r receives. o may be
// nil. It must be called before Run. The Receiver stays the caller's to close,
// after Run has returned.
//
// It fails with ErrInvalidOptions where a message's retries could outlast
// MaxMessageAge and no replay store exempts them: they would be dead-lettered as
// expired.
func (p *Processor) Handle(r *Receiver, h Handler, o *HandleOptions) error {
	const op = "handle"
	if r == nil || h == nil {
		return wrap(op, "", invalidOption("Handle needs a Receiver and a Handler"))
	}
	l, err := newLane(p, r, h, o)
	if err != nil {
		return wrap(op, r.queue, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.started:
		return wrap(op, r.queue, invalidOption("Handle must be called before Run"))
	case len(p.lanes) == p.o.Concurrency:
		return wrap(op, r.queue, invalidOption("ProcessorOptions.Concurrency is %d: each queue needs one", p.o.Concurrency))
	}
	p.lanes = append(p.lanes, l)
	p.slots.shares = append(p.slots.shares, l.share)
	return nil
}

// Run processes messages until ctx ends, Shutdown or Close is called, or a queue
// cannot be received from any more (its error, then). It then drains: it stops
// fetching, waits up to DrainTimeout for handlers, ends the contexts of those
// still running with ErrDraining, and waits CancelGrace for them. What they
// leave is given back. It returns nil after a clean drain.
//
// Run owns every goroutine it starts: when it returns none is left, unless it
// returns ErrHandlersRunning.
func (p *Processor) Run(ctx context.Context) error {
	const op = "run"
	if ctx == nil {
		return wrap(op, "", errNilContext)
	}
	p.mu.Lock()
	switch {
	case p.started:
		p.mu.Unlock()
		return wrap(op, "", invalidOption("a Processor runs once"))
	case len(p.lanes) == 0:
		p.mu.Unlock()
		return wrap(op, "", invalidOption("no queue: call Handle first"))
	}
	p.started = true
	if p.over {
		p.mu.Unlock()
		close(p.done)
		return nil
	}
	fetchCtx, stop := context.WithCancel(ctx)
	base, hard := context.WithCancelCause(context.WithoutCancel(ctx))
	p.stop, p.hard = stop, hard
	p.mu.Unlock()
	defer close(p.done)
	defer hard(ErrDraining)
	defer stop()

	var fetchers sync.WaitGroup
	errs := make([]error, len(p.lanes))
	for i, l := range p.lanes {
		l.base, l.keeper = base, newKeeper(base)
		fetchers.Go(func() {
			errs[i] = l.fetch(fetchCtx, base)
			stop() // one queue that ends ends all
		})
	}
	fetchers.Wait()
	for _, l := range p.lanes {
		close(l.work)
	}
	err := errors.Join(errs...)
	if e := p.drain(base, hard); e != nil {
		err = errors.Join(err, e)
	}
	for _, l := range p.lanes {
		l.keeper.close()
	}
	return wrap(op, "", err)
}

// drain waits for the handlers, first as they are, then with their contexts
// ended.
func (p *Processor) drain(base context.Context, hard context.CancelCauseFunc) error {
	idle := make(chan struct{})
	go func() { // ends with the last handler
		p.handlers.Wait()
		close(idle)
	}()
	timer := time.NewTimer(p.o.DrainTimeout)
	defer timer.Stop()
	select {
	case <-idle:
		return nil
	case <-timer.C:
		hard(ErrDraining)
	case <-base.Done(): // Close
	}
	timer.Reset(p.o.CancelGrace)
	select {
	case <-idle:
		return nil
	case <-timer.C:
	}
	return ErrHandlersRunning
}

// Shutdown makes Run drain, and returns when Run has, or when ctx ends, with its
// error; the drain then goes on. A Run that comes later returns at once. A handler,
// Middleware or OnError that called it would wait for itself: call it from there on
// a goroutine of its own.
func (p *Processor) Shutdown(ctx context.Context) error {
	if ctx == nil {
		return wrap("shutdown", "", errNilContext)
	}
	if !p.end(false) {
		return nil
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close stops hard: it ends fetching and the contexts of all handlers at once,
// and does not wait. Run returns when they have, after CancelGrace at the
// latest, but where the broker does not answer to what is given back just then:
// that has 15 s. For a second signal.
func (p *Processor) Close() { p.end(true) }

// end ends fetching, and handlers too where hard, and reports whether there is a
// Run to wait for.
func (p *Processor) end(hard bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stop == nil {
		p.over = true
		return false
	}
	p.stop()
	if hard {
		p.hard(ErrDraining)
	}
	return true
}

func (o *HandleOptions) resolve(r *Receiver) error {
	for _, v := range [...]struct {
		name  string
		value int64
	}{
		{"Weight", int64(o.Weight)},
		{"Concurrency", int64(o.Concurrency)},
		{"Prefetch", int64(o.Prefetch)},
		{"SessionIdle", int64(o.SessionIdle)},
		{"SessionTurn", int64(o.SessionTurn)},
		{"MaxProcessing", int64(o.MaxProcessing)},
		{"MaxDeliveries", int64(o.MaxDeliveries)},
	} {
		if v.value < 0 {
			return invalidOption("HandleOptions.%s is negative", v.name)
		}
	}
	if o.Weight == 0 {
		o.Weight = 1
	}
	if o.Prefetch == 0 {
		o.Prefetch = 32
	}
	if o.SessionIdle == 0 {
		o.SessionIdle = DefaultSessionIdle
	}
	if o.SessionTurn == 0 {
		o.SessionTurn = DefaultSessionTurn
	}
	if o.MaxProcessing == 0 {
		o.MaxProcessing = DefaultMaxProcessing
	}
	if o.MaxDeliveries == 0 {
		o.MaxDeliveries = r.options.MaxDeliveries
	}
	if r.caps.SessionOnly {
		o.Sessions = true
	}
	if o.Sessions && r.caps.Sessions == 0 {
		return fmt.Errorf("%w: HandleOptions.Sessions: this broker has none", ErrInvalidOptions)
	}
	return o.resolveRetry(r)
}

// leastRetry is what the default policy is cut to at most, to fit the age that
// messages may have.
const leastRetry = 100 * time.Millisecond

// resolveRetry keeps the retries within the age that messages may have, where
// nothing exempts them.
func (o *HandleOptions) resolveRetry(r *Receiver) error {
	age := r.RetryLimit()
	bounded := age > 0
	if o.Retry == nil {
		e := backoff.Exponential{First: time.Second, Max: 5 * time.Minute}
		for bounded && e.Max > leastRetry && backoff.Exceeds(e, o.MaxDeliveries, age/2) {
			e.Max = max(e.Max/2, leastRetry)
			e.First = min(e.First, e.Max)
		}
		o.Retry = e
	}
	if bounded && backoff.Exceeds(o.Retry, o.MaxDeliveries, age) {
		return invalidOption("%d deliveries by this retry policy can take longer than MaxMessageAge (%s), and a message older than that is dead-lettered as expired: track nonces, which exempts retries, or retry faster or less often", o.MaxDeliveries, age)
	}
	return nil
}
