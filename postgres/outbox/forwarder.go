package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/observe"
)

// Defaults of [ForwarderOptions].
const (
	DefaultWorkers     = 4
	DefaultSendTimeout = 10 * time.Second

	// DefaultMaxAge is for a broker that does not report how long it keeps messages. It
	// is the longest that queue.Strict lets any broker say.
	DefaultMaxAge = 14 * 24 * time.Hour
)

// ForwarderOptions are the options of [NewForwarder]. A negative value is an error.
type ForwarderOptions struct {
	// MaxAge is from which age a message is not sent any more, because its receivers
	// would find it too old: their CryptoConfig.MaxMessageAge. It becomes a dead letter
	// of the outbox with the reason message_expired. The age counts from Prepare, or from
	// NotBefore. 0 means as long as the broker keeps messages (Capabilities.Retention), or
	// 14 days.
	MaxAge time.Duration

	// Workers is how many calls to the broker are made at once. 0 means 4.
	Workers int

	// SendTimeout bounds each call to the broker, and must be less than half of the lock
	// of the outbox's queue: a message that another Forwarder has taken over in the
	// meantime is sent twice. 0 means 10 s.
	SendTimeout time.Duration

	// Retry says how long a message waits that its broker refused without saying why, and
	// its session with it. Nil means from 1 s, doubling up to 5 minutes.
	Retry backoff.Policy

	// Outage configures the breaker that keeps this Forwarder from a broker that does not
	// answer, is full, throttles or refuses everything. Nil means that it opens at the
	// first such answer, for 200 ms, doubling up to 30 s.
	Outage *backoff.BreakerOptions

	// Observer gets the events Sent, DeadLettered, Retried and Breaker, a Send operation
	// for each call, and Closed with the role Worker when Run returns. Nil means none.
	Observer observe.Observer

	// Environment is for the Observer, as queue.Options.Environment.
	Environment string

	// Logger gets a line for each dead letter, outage and end of one. Nil means
	// slog.Default.
	Logger *slog.Logger
}

// Forwarder sends the messages of one queue from an outbox to a broker. It is safe for
// concurrent use. Several in one process or many share the work.
type Forwarder struct {
	name    string
	from    driver.Queue // of the outbox
	to      driver.Queue // of the broker
	limit   int          // of deliveries
	options ForwarderOptions
	breaker *backoff.Breaker
	obs     observe.Scope
	log     *slog.Logger
	ran     atomic.Bool
}

// NewForwarder opens a queue of the broker and its outbox. o may be nil. The broker stays
// the caller's. It fails with queue.ErrQueueNotFound if the broker has no such queue, and
// with queue.ErrInvalidOptions.
func NewForwarder(ctx context.Context, from *Outbox, to driver.Broker, name string, o *ForwarderOptions) (*Forwarder, error) {
	f := &Forwarder{name: name}
	if o != nil {
		f.options = *o
	}
	if err := f.open(ctx, from, to); err != nil {
		f.close(context.WithoutCancel(ctx))
		return nil, queue.NewError("open forwarder", name, err)
	}
	return f, nil
}

func (f *Forwarder) open(ctx context.Context, from *Outbox, to driver.Broker) (err error) {
	if from == nil || to == nil {
		return fmt.Errorf("%w: an outbox and a broker are needed", queue.ErrInvalidOptions)
	}
	if f.to, err = to.Open(ctx, f.name, nil); err != nil {
		return err
	}
	if f.from, err = from.broker.Open(ctx, f.name, nil); err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	if err := f.resolve(); err != nil {
		return err
	}
	f.log = f.options.Logger
	if f.log == nil {
		f.log = slog.Default()
	}
	f.log = f.log.With(slog.String("queue", f.name))
	f.obs = observe.NewScope(f.options.Observer, observe.Source{Queue: f.name, Environment: f.options.Environment})
	f.limit = f.from.Capabilities().MaxDeliveries
	breaker := backoff.BreakerOptions{Failures: 1, FirstOpen: 200 * time.Millisecond, Open: 30 * time.Second, Successes: 1}
	if f.options.Outage != nil {
		breaker = *f.options.Outage
	}
	told := breaker.OnChange
	breaker.OnChange = func(s backoff.State) {
		f.changed(s)
		if told != nil {
			told(s)
		}
	}
	f.breaker, err = backoff.NewBreaker(&breaker)
	return err
}

// resolve fills in defaults and checks the rest.
func (f *Forwarder) resolve() error {
	o := &f.options
	err := driver.CheckSettings([]driver.Setting{
		{Name: "MaxAge", Value: int64(o.MaxAge)},
		{Name: "Workers", Value: int64(o.Workers)},
		{Name: "SendTimeout", Value: int64(o.SendTimeout)},
	})
	if err != nil {
		return fmt.Errorf("%w: ForwarderOptions.%w", queue.ErrInvalidOptions, err)
	}
	if o.MaxAge == 0 {
		o.MaxAge = f.to.Capabilities().Retention
	}
	if o.MaxAge <= 0 {
		o.MaxAge = DefaultMaxAge
	}
	if o.Workers == 0 {
		o.Workers = DefaultWorkers
	}
	lock := f.from.Capabilities().Lock
	if o.SendTimeout == 0 {
		o.SendTimeout = min(DefaultSendTimeout, lock/3)
	}
	if o.SendTimeout >= lock/2 {
		return fmt.Errorf("%w: ForwarderOptions.SendTimeout is %s and the outbox's lock %s: the time-out must be less than half of it",
			queue.ErrInvalidOptions, o.SendTimeout, lock)
	}
	if o.Retry == nil {
		o.Retry = backoff.Exponential{}
	}
	return nil
}

// Queue returns the name of the outbox for metrics: the name of its queue behind "outbox:".
func (f *Forwarder) Queue() string { return "outbox:" + f.name }

// Stats counts what waits in the outbox, and its dead letters.
func (f *Forwarder) Stats(ctx context.Context) (driver.Stats, error) {
	st, err := f.from.Stats(ctx)
	return st, queue.NewError("stats", f.name, err)
}

const (
	// receiveWait is how long a worker waits for a message. It ends with a message, and
	// with the context.
	receiveWait = 20 * time.Second

	// receiveBatch bounds how many messages a worker takes at once.
	receiveBatch = 100

	// settleTimeout bounds the removal of what was sent, which goes on after the context
	// has ended.
	settleTimeout = 10 * time.Second
)

// Run forwards until ctx ends, and then returns nil: calls under way are finished, and the
// rest stays in the outbox. It waits while the outbox's database or the broker does not
// answer. It fails with queue.ErrClosed if one of them is closed. A second Run fails.
func (f *Forwarder) Run(ctx context.Context) error {
	if f.ran.Swap(true) {
		return queue.NewError("forward", f.name, fmt.Errorf("%w: a Forwarder runs once", queue.ErrInvalidOptions))
	}
	defer f.close(context.WithoutCancel(ctx))
	defer f.obs.Closed(context.WithoutCancel(ctx), f.obs.Source, observe.Closed{Role: observe.Worker})
	running, stop := context.WithCancel(ctx)
	defer stop()
	var workers sync.WaitGroup
	errs := make([]error, f.options.Workers)
	for i := range errs {
		workers.Go(func() {
			if errs[i] = f.work(running); errs[i] != nil {
				stop()
			}
		})
	}
	workers.Wait()
	for _, err := range errs {
		if err != nil {
			return queue.NewError("forward", f.name, err)
		}
	}
	return nil
}

func (f *Forwarder) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	for _, q := range []driver.Queue{f.from, f.to} {
		if q != nil {
			_ = q.Close(ctx) // nothing is held any more
		}
	}
}

// work forwards until ctx ends; its error is that nothing can be forwarded ever.
func (f *Forwarder) work(ctx context.Context) error {
	failures := 0 // of the outbox, in a row
	for ctx.Err() == nil {
		permit, wait, ok := f.breaker.Allow()
		if !ok {
			backoff.Sleep(ctx, max(wait, time.Millisecond)) // the breaker may say 0, and must not be asked in a loop
			continue
		}
		batch, err := f.from.Receive(ctx, f.batchSize(&permit), receiveWait)
		if err != nil || len(batch) == 0 {
			permit.Unused()
		}
		switch {
		case errors.Is(err, driver.ErrClosed):
			return err
		case err != nil && ctx.Err() == nil:
			failures++
			if failures == 1 {
				f.log.LogAttrs(ctx, slog.LevelWarn, "Outbox cannot be read", slog.String("error", err.Error()))
			}
			backoff.Sleep(ctx, outboxRetry.Delay(failures))
			continue
		case len(batch) == 0:
			continue
		}
		failures = 0
		if err := f.forward(context.WithoutCancel(ctx), batch, &permit); err != nil {
			return err
		}
	}
	return nil
}

// outboxRetry is how long to wait before the outbox is asked again after a failure.
var outboxRetry = backoff.Exponential{First: time.Second, Max: 30 * time.Second}

// batchSize is how many messages to take: what one call to the broker takes, and one to
// find out whether it works again.
func (f *Forwarder) batchSize(p *backoff.Permit) int {
	if p.Test() {
		return 1
	}
	return min(max(1, f.to.Capabilities().MaxBatch), receiveBatch)
}

// changed tells of a change of the breaker.
func (f *Forwarder) changed(s backoff.State) {
	ctx := context.Background()
	f.obs.Breaker(ctx, f.obs.Source, observe.Breaker{State: string(s)})
	switch s {
	case backoff.Open:
		f.log.LogAttrs(ctx, slog.LevelWarn, "Forwarding paused: the broker takes nothing")
	case backoff.Closed:
		f.log.LogAttrs(ctx, slog.LevelInfo, "Forwarding resumed")
	case backoff.HalfOpen:
	}
}
