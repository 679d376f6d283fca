package worker

import (
	"context"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/driver"
)

// Defaults of [Options] and [HandleOptions].
const (
	DefaultConcurrency   = 16
	DefaultPrefetch      = 32
	DefaultMaxProcessing = 10 * time.Minute
	DefaultDrainTimeout  = 15 * time.Second
	DefaultCancelGrace   = 5 * time.Second
	DefaultSessionIdle   = 2 * time.Second
	DefaultSessionTurn   = 100
)

// Options configure a [Pool]. Durations must not be negative.
type Options struct {
	// Concurrency is how many handlers run at once over all queues; at least one for
	// each queue. As many messages again may be handled and not completed yet. 0 means 16.
	Concurrency int

	// DrainTimeout is how long handlers may go on after Run's context ended or Stop was
	// called. Their contexts then end with ErrDraining. 0 means 15 s: with CancelGrace
	// and 4 s for settling, a drain takes at most 24 s, and what kills processes waits
	// 30 s.
	DrainTimeout time.Duration

	// CancelGrace is how long a handler has to return after its context ended: before
	// a drain gives it up, and before a warning says that it is past MaxProcessing. 0
	// means 5 s.
	CancelGrace time.Duration

	// Middleware wraps every handler, the first outermost. Nil means none.
	Middleware []Middleware

	// Breaker is for calls to the brokers; each queue has one of its own.
	// If its Open and FirstOpen are 0, they are 8 s and 1 s.
	Breaker backoff.BreakerOptions

	// ContinueOnError makes the other queues go on if one cannot be received from any
	// more: it was not found for a minute, or its Receiver is closed. The log says so at
	// once, and Run's error when it returns. False makes the pool drain and Run return.
	ContinueOnError bool

	// OnError is called with each error that a handler returned or panicked with, and
	// each failure to settle, from the goroutine of the handler, whose slot it holds.
	// It must not panic, and is called from many goroutines at once. The library itself
	// logs the text only of errors that Public marks. Nil means no callback.
	OnError func(ctx context.Context, d *queue.Delivery, err error)
}

func (o *Options) resolve() error {
	err := driver.CheckSettings([]driver.Setting{
		{Name: "Concurrency", Value: int64(o.Concurrency)},
		{Name: "DrainTimeout", Value: int64(o.DrainTimeout)},
		{Name: "CancelGrace", Value: int64(o.CancelGrace)},
	})
	if err != nil {
		return invalidOption("worker.Options.%v", err)
	}
	if _, err := backoff.NewBreaker(&o.Breaker); err != nil {
		return invalidOption("worker.Options.Breaker: %v", err)
	}
	if o.Concurrency == 0 {
		o.Concurrency = DefaultConcurrency
	}
	if o.DrainTimeout == 0 {
		o.DrainTimeout = DefaultDrainTimeout
	}
	if o.CancelGrace == 0 {
		o.CancelGrace = DefaultCancelGrace
	}
	return nil
}

// HandleOptions configure one queue of a [Pool]. No value may be negative.
type HandleOptions struct {
	// Weight is the queue's part of the slots that several queues want. 0 means 1.
	Weight int

	// Concurrency is how many of the queue's messages are handled at once, or of its
	// sessions. 0 means as many as the Pool has.
	Concurrency int

	// Prefetch is how many messages one call to the broker may bring. It is never more
	// than there are free slots to handle them at once. 0 means 32.
	Prefetch int

	// Sessions makes the queue be received session by session: the messages of each in
	// order, one at a time, by one receiver. It is always so if the broker has no other
	// way (Capabilities.SessionOnly). Brokers that deliver messages of sessions on the
	// queue itself keep their order also without it.
	//
	// A message without a SessionID is a session of its own: it is handled as soon as it
	// would be otherwise, beside any other.
	Sessions bool

	// SessionIdle is how long a session without messages is kept. 0 means 2 s.
	SessionIdle time.Duration

	// SessionTurn is after how many messages a session is given up, so that others have
	// a turn. 0 means 100.
	SessionTurn int

	// MaxProcessing is how long one handler may take. Its context then ends with
	// ErrMaxProcessing. If it does not return within CancelGrace, a warning says so;
	// its message stays locked for as long as it runs in this process, so that it does
	// not run twice. 0 means 10 minutes.
	MaxProcessing time.Duration

	// Retry says how long a message waits after a failure. A policy that allows no
	// further attempt moves it to the dead-letter queue.
	//
	// Nil means delays that grow by one factor from 1 s to at most an hour, each drawn
	// between its half and the whole. The factor is 4, or larger if MaxDeliveries is
	// less than 9, so that a message survives an outage of an hour; fewer than 4
	// deliveries cannot. With 10 deliveries they last 101 to 203 minutes. If
	// Receiver.RetryLimit is not 0, the longest delay is cut until all fit into half of
	// it.
	Retry backoff.Policy

	// MaxDeliveries is after how many deliveries a message that fails is moved to the
	// dead-letter queue, at most the receiver's. A message that comes once more, because
	// it ended its process or outlasted its lock, is moved before its handler is called.
	// 0 means the receiver's, which is the broker's, or 10 if the broker has none.
	MaxDeliveries int

	// Downstream learns how handlers end: nil and Permanent are successes, any other
	// error is a failure unless the handler's context had ended. While it is open
	// nothing is fetched, and while it is half open one message at a time is handled to
	// test it. Messages that were fetched meanwhile, and tests that fail, are released:
	// they do not count towards MaxDeliveries, or on a broker that counts them wait as
	// Later says. Share one Breaker among the queues whose
	// handlers call the same service. Nil means none.
	Downstream *backoff.Breaker
}

func (o *HandleOptions) resolve(r *queue.Receiver) error {
	err := driver.CheckSettings([]driver.Setting{
		{Name: "Weight", Value: int64(o.Weight)},
		{Name: "Concurrency", Value: int64(o.Concurrency)},
		{Name: "Prefetch", Value: int64(o.Prefetch)},
		{Name: "SessionIdle", Value: int64(o.SessionIdle)},
		{Name: "SessionTurn", Value: int64(o.SessionTurn)},
		{Name: "MaxProcessing", Value: int64(o.MaxProcessing)},
		{Name: "MaxDeliveries", Value: int64(o.MaxDeliveries)},
	})
	if err != nil {
		return invalidOption("HandleOptions.%v", err)
	}
	if o.Weight == 0 {
		o.Weight = 1
	}
	if o.Prefetch == 0 {
		o.Prefetch = DefaultPrefetch
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
		o.MaxDeliveries = r.Options().MaxDeliveries
	}
	if limit := r.Options().MaxDeliveries; o.MaxDeliveries > limit {
		return invalidOption("HandleOptions.MaxDeliveries is %d, and the receiver dead-letters what comes more than %d times: raise ReceiverOptions.MaxDeliveries, and the queue's own limit if it has one", o.MaxDeliveries, limit)
	}
	caps := r.Capabilities()
	if caps.SessionOnly {
		o.Sessions = true
	}
	if o.Sessions && caps.Sessions == driver.None {
		return invalidOption("HandleOptions.Sessions is set, and this broker has no sessions")
	}
	return o.resolveRetry(r)
}
