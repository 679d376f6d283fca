package worker

import (
	"context"
	"errors"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/driver"
)

// What becomes of a message is decided here, by a pure function. settlement.go carries
// it out.

// role says what a call of a handler was for.
type role uint8

const (
	ordinary role = iota
	probe         // it tested a downstream whose breaker is half open
	untried       // no handler was called, because the downstream's breaker is open
	exceeded      // no handler was called, because the message came more often than it may
)

// result is what is known of a message when its handler has returned.
type result struct {
	err   error // what the handler returned
	cause error // why the handler's context ended before it returned; nil if it did not
	role  role
	wait  time.Duration // until the downstream is asked again; of an untried message
	count int           // deliveries, this one included
}

// rules are what one queue decides by.
type rules struct {
	retry         backoff.Policy
	maxDeliveries int
	maxDelay      time.Duration // the longest delay that the broker can do; 0 = no limit
	// spare is how long a message waits at the least that is given back unspent, once half
	// of its deliveries are gone all the same: of a broker that counts what is released. 0 if
	// it does not.
	spare time.Duration
}

// settlement is what becomes of a message.
type settlement struct {
	disposition driver.Disposition
	delay       time.Duration // if Abandoned or Released: how long the message waits
	code        string        // if DeadLettered: the reason
	// failure is what spans, metrics and a warning tell of: nil if the message was
	// handled, or given back as planned.
	failure error
	// counts says that the failure was one try of the message.
	counts bool
}

// untriedDelay is how long an untried message waits at the least, so that it does not
// come back at once to a downstream that is away.
const untriedDelay = time.Second

// decide says what becomes of a message. The first row that fits applies:
//
//	handler returned nil                   completed, even if the lock is lost: a replay
//	                                       store remembers the work
//	Permanent                              dead_lettered, with its code
//	the lock or the session is lost        lost
//	the downstream's breaker is open       released, until the downstream is asked again
//	it came more often than it may         dead_lettered, max_deliveries
//	the pool drains                        released, for the delay that the handler asked for
//	Later                                  released, for its delay
//	a probe failed in its time             released, for the retry's delay
//	no deliveries or no retries are left   dead_lettered, max_deliveries
//	RetryAfter, any other error            abandoned, for the retry's delay
func decide(r result, p rules) settlement {
	if r.err == nil && r.role != untried {
		return settlement{disposition: driver.Completed}
	}
	var permanent *permanentError
	if errors.As(r.err, &permanent) {
		return settlement{disposition: driver.DeadLettered, code: permanent.code, failure: r.err}
	}
	if errors.Is(r.cause, queue.ErrLockLost) || errors.Is(r.cause, queue.ErrSessionLost) {
		return settlement{disposition: driver.Lost, failure: r.err}
	}
	switch r.role {
	case untried:
		return settlement{disposition: driver.Released, delay: p.unspent(r, max(r.wait, untriedDelay))}
	case exceeded:
		return settlement{disposition: driver.DeadLettered, code: driver.ReasonMaxDeliveries, failure: r.err}
	case ordinary, probe:
	}
	var planned *retryError
	asked := errors.As(r.err, &planned)
	switch {
	case errors.Is(r.cause, ErrDraining):
		s := settlement{disposition: driver.Released}
		if asked {
			s.delay = p.bound(planned.delay)
		} else if !errors.Is(r.err, ErrDraining) && !errors.Is(r.err, context.Canceled) {
			s.failure = r.err
		}
		return s
	case asked && planned.uncounted:
		return settlement{disposition: driver.Released, delay: p.unspent(r, planned.delay)}
	case asked:
		return p.again(r, settlement{delay: planned.delay, counts: true})
	}
	return p.again(r, settlement{delay: p.retry.Delay(r.count), failure: r.err, counts: true})
}

// again decides about a message that failed and would be retried after s.delay.
func (p rules) again(r result, s settlement) settlement {
	switch {
	case r.role == probe && r.cause == nil:
		// The downstream was known to be away: that is not the message's fault.
		s.disposition, s.delay = driver.Released, p.unspent(r, max(s.delay, 0))
	case s.delay < 0 || r.count >= p.maxDeliveries:
		return settlement{disposition: driver.DeadLettered, code: driver.ReasonMaxDeliveries, failure: r.err, counts: true}
	default:
		s.disposition, s.delay = driver.Abandoned, p.bound(s.delay)
	}
	return s
}

// unspent is the delay of a message that is given back unspent: what the broker counts of it
// has to last for an outage of hours.
func (p rules) unspent(r result, delay time.Duration) time.Duration {
	if r.count > p.maxDeliveries/2 {
		delay = max(delay, p.spare)
	}
	return p.bound(delay)
}

// bound cuts a delay to what the broker can do.
func (p rules) bound(delay time.Duration) time.Duration {
	if p.maxDelay > 0 {
		return min(delay, p.maxDelay)
	}
	return delay
}
