package worker

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/observe"
)

// Pool receives from queues and runs a [Handler] for each message. It is used once:
// Handle for each queue, then Run. Stop may be called at any time, from any goroutine.
type Pool struct {
	o     Options
	slots *slots
	// completions is how many messages are completed without a slot: as many as there are slots
	// at most.
	completions atomic.Int64
	first       chan struct{} // is full while a message is handled alone, by whichever queue

	handlers sync.WaitGroup // workers, and sessions that are worked through
	done     chan struct{}  // closed when Run has returned

	mu        sync.Mutex // guards the fields below
	state     poolState
	consumers []*consumer
	fetchers  int                     // consumers that receive; set while running
	stop      context.CancelFunc      // ends fetching; set while running
	hard      context.CancelCauseFunc // ends the handlers' contexts; set while running
}

// poolState says what a Pool can still be asked.
type poolState uint8

const (
	assembling poolState = iota // Handle adds queues
	stopped                     // Stop was called before Run, which then returns at once
	running                     // Run was called
)

// settleGrace is how long a drain waits, after CancelGrace, until what the handlers
// left is given back. It keeps the sum of the defaults at 24 s.
const settleGrace = 4 * time.Second

// New returns a Pool without queues. o may be nil. It fails with
// queue.ErrInvalidOptions, and does no I/O.
func New(o *Options) (*Pool, error) {
	p := &Pool{done: make(chan struct{}), first: make(chan struct{}, 1)}
	if o != nil {
		p.o = *o
	}
	if err := p.o.resolve(); err != nil {
		return nil, wrap("new pool", "", err)
	}
	p.slots = &slots{total: p.o.Concurrency}
	return p, nil
}

// Handle makes the pool run h for each message that r receives. o may be nil. It must
// be called before Run, once for each Receiver, which stays the caller's to close after
// Run has returned.
//
// It fails with queue.ErrInvalidOptions, also if the retries of a message could last
// longer than MaxMessageAge and no replay store exempts them: they would be
// dead-lettered as expired.
func (p *Pool) Handle(r *queue.Receiver, h Handler, o *HandleOptions) error {
	const op = "handle"
	if r == nil || h == nil {
		return wrap(op, "", invalidOption("Handle needs a Receiver and a Handler"))
	}
	c, err := newConsumer(p, r, h, o)
	if err != nil {
		return wrap(op, r.Queue(), err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.state == running:
		return wrap(op, r.Queue(), invalidOption("Handle must be called before Run"))
	case len(p.consumers) == p.o.Concurrency:
		return wrap(op, r.Queue(), invalidOption("worker.Options.Concurrency is %d: each queue needs one", p.o.Concurrency))
	}
	for _, other := range p.consumers {
		if other.receiver == r {
			return wrap(op, r.Queue(), invalidOption("this Receiver has a handler already"))
		}
	}
	p.consumers = append(p.consumers, c)
	p.slots.reserve()
	return nil
}

// Run handles messages until ctx ends, Stop is called, or a queue cannot be received
// from any more; then its error says why. It then drains: it stops fetching, waits up
// to DrainTimeout for handlers, ends the contexts of those still running with
// ErrDraining, waits CancelGrace for them, and 4 s more for the broker to take back what
// they left. By default that is 15 + 5 + 4 = 24 s at the most. What a drain gives back
// is released: it does not count as a delivery if the broker can do that.
//
// It returns nil after a clean drain. Run owns every goroutine that it starts: when it
// returns none is left, unless its error wraps ErrHandlersRunning.
func (p *Pool) Run(ctx context.Context) error {
	const op = "run"
	if ctx == nil {
		return wrap(op, "", errNilContext)
	}
	p.mu.Lock()
	before := p.state
	if before == running || len(p.consumers) == 0 {
		p.mu.Unlock()
		if before == running {
			return wrap(op, "", invalidOption("a Pool runs once"))
		}
		return wrap(op, "", invalidOption("no queue: call Handle first"))
	}
	defer close(p.done)
	p.state, p.fetchers = running, len(p.consumers)
	if before == stopped {
		p.mu.Unlock()
		return nil
	}
	fetching, stop := context.WithCancel(ctx)
	base, hard := context.WithCancelCause(context.WithoutCancel(ctx))
	p.stop, p.hard = stop, hard
	p.mu.Unlock()
	defer hard(ErrDraining)
	defer stop()

	failed := make(chan error, len(p.consumers))
	idle := p.startConsumers(fetching, base, failed)
	<-fetching.Done()
	err := p.drain(base, idle)
	for _, c := range p.consumers {
		c.observer.Closed(base, c.observer.Source, observe.Closed{Role: observe.Worker})
	}
	for range len(failed) {
		err = errors.Join(<-failed, err)
	}
	return wrap(op, "", err)
}

// startConsumers makes every consumer fetch until fetching ends. One that fails ends
// all. The channel that it returns is closed when the last goroutine of the pool ends.
func (p *Pool) startConsumers(fetching, base context.Context, failed chan<- error) (idle <-chan struct{}) {
	var fetchers sync.WaitGroup
	for _, c := range p.consumers {
		c.begin(base)
		fetchers.Go(func() {
			if err := c.fetch(fetching); err != nil {
				failed <- err
				p.gaveUp(c, err)
			}
		})
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		fetchers.Wait()
		for _, c := range p.consumers {
			close(c.work)
		}
		p.handlers.Wait()
		for _, c := range p.consumers {
			c.renewer.stop()
			c.renewer.calls.Wait()
		}
	}()
	return ended
}

// gaveUp ends the pool when a queue cannot be received from any more, or when the last one
// cannot if the others are to go on.
func (p *Pool) gaveUp(c *consumer, err error) {
	c.log.LogAttrs(c.base, slog.LevelError, "Receiving given up", slog.String("queue", c.name), slog.String("error", err.Error()))
	p.mu.Lock()
	p.fetchers--
	last := p.fetchers == 0
	p.mu.Unlock()
	if last || !p.o.ContinueOnError {
		p.stop()
	}
}

// drain waits for the handlers, first as they are, then with their contexts ended.
func (p *Pool) drain(base context.Context, idle <-chan struct{}) error {
	timer := time.NewTimer(p.o.DrainTimeout)
	defer timer.Stop()
	select {
	case <-idle:
		return nil
	case <-timer.C:
		p.hard(ErrDraining)
	case <-base.Done(): // Stop, whose context has ended
	}
	timer.Reset(p.o.CancelGrace + settleGrace)
	select {
	case <-idle:
		return nil
	case <-timer.C:
	}
	for _, c := range p.consumers {
		c.renewer.stop()
	}
	return ErrHandlersRunning
}

// Stop makes Run drain, and returns nil when Run has returned. If ctx ends first, it
// ends the contexts of all handlers at once, so that Run returns within CancelGrace and
// 4 s, and returns ctx.Err() without waiting for it. So a first signal is a Stop with
// context.Background, and a second one a Stop with a context that has ended:
//
//	over, cancel := context.WithCancel(context.Background())
//	cancel()
//	_ = pool.Stop(over)
//
// A Run that comes after Stop returns at once. A handler, Middleware or OnError that
// called Stop would wait for itself: call it on a goroutine of its own.
func (p *Pool) Stop(ctx context.Context) error {
	if ctx == nil {
		return wrap("stop", "", errNilContext)
	}
	p.mu.Lock()
	if p.state != running {
		p.state = stopped
		p.mu.Unlock()
		return nil
	}
	stop, hard := p.stop, p.hard
	p.mu.Unlock()
	if stop != nil {
		stop()
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
	}
	if hard != nil {
		hard(ErrDraining) // without effect if Run has returned
	}
	return ctx.Err()
}
