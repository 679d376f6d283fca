package queue

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// maxLateFetches is how many fetches in a row may bring nothing but messages whose locks
// have ended: a machine that stood still for a moment is one, or two.
const maxLateFetches = 3

// The RetryAfter of a fetch that was late once more: doubled each time, and as long at most
// as in a pause for a wrong key.
const (
	firstLateWait = time.Second
	maxLateWait   = 5 * time.Minute
)

// arrivals notices that no message can be handled, because the lock of each, or of its
// session, ends before it is handed out: the key provider takes longer than the lock lives,
// or a driver takes the end of the lock from a clock that is not this machine's. Without it
// receiving goes on and looks healthy, until the broker's limit of deliveries makes all
// that waits dead letters. It is safe for concurrent use.
type arrivals struct {
	late atomic.Int64 // fetches and accepted sessions in a row
}

// judge takes in what a fetch brought, and returns an error if it was late once too often.
func (a *arrivals) judge(batch []*Delivery) error {
	if len(batch) == 0 {
		return nil
	}
	now := time.Now()
	for _, d := range batch {
		if !d.expired(now) {
			a.inTime()
			return nil
		}
	}
	if wait := a.tooLate(); wait > 0 {
		return &driver.Error{Kind: driver.LockLost, RetryAfter: wait, Err: errLateMessages}
	}
	return nil
}

// judgeSession takes in when the lock of a session ends, and returns an error if it has
// ended: nothing can be done with such a session.
func (a *arrivals) judgeSession(until, now time.Time) error {
	if until.IsZero() || now.Before(until) {
		a.inTime()
		return nil
	}
	return &driver.Error{Kind: driver.SessionLost, RetryAfter: a.tooLate(), Err: errLateSession}
}

func (a *arrivals) inTime() {
	if a.late.Load() != 0 { // a write would slow down all that share it
		a.late.Store(0)
	}
}

// tooLate returns how long to wait, 0 if what came late can be chance.
func (a *arrivals) tooLate() time.Duration {
	switch n := a.late.Add(1) - maxLateFetches; {
	case n < 0:
		return 0
	case n < 16: // further doublings would overflow
		return min(firstLateWait<<n, maxLateWait)
	}
	return maxLateWait
}

const compareClocks = "make ReceiverOptions.Lock longer than the key provider takes, and compare the clocks of this machine and the broker"

var (
	errLateMessages = errors.New("the locks of all messages that came of late ended before they could be handed out: " + compareClocks)
	errLateSession  = errors.New("the lock of the session had ended when it came: " + compareClocks)
)
