package worker

import (
	"context"
	"errors"
	"time"

	"github.com/queue-runtime/queue"
)

// lock is a lock at the broker that can be extended.
type lock interface {
	renew(ctx context.Context) error
	expires() time.Time // zero means it has no end in time
	lost() error        // the cause for the handler's context when it is over
}

// messageLock is the lock of a message of the queue, and its claim in the replay store.
// The renewer extends those that are due with one call.
type messageLock struct{ *queue.Delivery }

func (l messageLock) renew(ctx context.Context) error { return l.Renew(ctx) }
func (l messageLock) expires() time.Time              { return l.HeldUntil() }
func (messageLock) lost() error                       { return queue.ErrLockLost }

// claimLock is the claim of a message of a session, whose lock is the session's.
type claimLock struct{ messageLock }

// sessionLock is the lock of a session.
type sessionLock struct{ *queue.Session }

func (l sessionLock) renew(ctx context.Context) error { return l.Renew(ctx) }
func (l sessionLock) expires() time.Time              { return l.LockedUntil() }
func (sessionLock) lost() error                       { return queue.ErrSessionLost }

// lease is the right of this process to work on a message or a session: a lock that a
// renewer extends, and the time that a handler may take. Its state is guarded by the
// renewer's mu.
type lease struct {
	lock lock // nil means another lease extends it, or it has no lock
	// cancel ends the handler's context. It may be called more than once.
	cancel context.CancelCauseFunc
	id     string        // of the message, for the log
	grace  time.Duration // how long a handler has to return after its time is over

	state   lockState
	until   time.Time // when the lock ends, while locked or renewing
	renewAt time.Time // while locked

	stage stage
	limit time.Time // when the next stage begins; zero means never

	index int // in renewer.leases; -1: it is not there
}

// lockState says what is known of the lock.
type lockState uint8

const (
	unlocked lockState = iota // there is none that ends, or it is lost
	locked                    // it is extended at renewAt
	renewing                  // a call that extends it is under way
)

// stage says what became of the time that the handler may take.
type stage uint8

const (
	inTime   stage = iota
	overdue        // its context has ended, and it has grace to return
	reported       // it did not return, and the log says so
)

const (
	// retryRenewal is the part of the time left after which a renewal that failed is
	// repeated: a quarter leaves time for several attempts before the lock ends.
	retryRenewal = 4
	// minRenewalWait keeps those attempts apart when the lock is about to end.
	minRenewalWait = 10 * time.Millisecond
)

// schedule begins a period of the lock. It is renewed after half of what is left, which
// leaves as much time again for a broker that does not answer at once.
func (x *lease) schedule(now time.Time) {
	x.state = unlocked
	if x.lock == nil {
		return
	}
	if until := x.lock.expires(); !until.IsZero() {
		x.state, x.until = locked, until
		x.renewAt = now.Add(until.Sub(now) / 2)
	}
}

// due is when advance has something to do; zero means never.
func (x *lease) due() time.Time {
	at := x.limit
	earlier := func(t time.Time) {
		if at.IsZero() || t.Before(at) {
			at = t
		}
	}
	if x.state != unlocked {
		earlier(x.until)
	}
	if x.state == locked {
		earlier(x.renewAt)
	}
	return at
}

// duty is what the renewer has to do for a lease.
type duty struct {
	renew bool // extend the lock, and call renewed
	warn  bool // the handler ignores the end of its context
}

// advance brings x to the time now. The lock is renewed also when the handler is
// overdue: while it works in this process, the message must not run a second time.
func (x *lease) advance(now time.Time) (do duty) {
	if x.state != unlocked && !now.Before(x.until) {
		x.lose()
	}
	if x.state == locked && !now.Before(x.renewAt) {
		x.state, do.renew = renewing, true
	}
	if x.limit.IsZero() || now.Before(x.limit) {
		return do
	}
	if x.stage == inTime {
		x.cancel(ErrMaxProcessing)
		x.stage, x.limit = overdue, x.limit.Add(x.grace)
		return do
	}
	x.stage, x.limit, do.warn = reported, time.Time{}, true
	return do
}

// renewed takes in how a renewal ended.
func (x *lease) renewed(now time.Time, err error) {
	switch {
	case x.state != renewing: // the lock ended meanwhile
	case err == nil:
		x.schedule(now)
	case errors.Is(err, queue.ErrLockLost), errors.Is(err, queue.ErrSessionLost), errors.Is(err, queue.ErrSettled):
		x.lose()
	default:
		// Again soon, while the lock lives: perhaps longer than was known, if the
		// handler renews it, too.
		if until := x.lock.expires(); until.After(x.until) {
			x.until = until
		}
		x.state = locked
		x.renewAt = now.Add(max(x.until.Sub(now)/retryRenewal, minRenewalWait))
	}
}

// lose ends the handler's context, because its lock is over.
func (x *lease) lose() {
	x.cancel(x.lock.lost())
	x.state = unlocked
}
