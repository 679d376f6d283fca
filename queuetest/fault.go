package queuetest

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/driver"
)

// Op is a call to a driver.
type Op string

// The calls that faults can meet.
const (
	Send          Op = "send"
	Receive       Op = "receive"
	Settle        Op = "settle"
	Renew         Op = "renew" // of messages and of sessions
	AcceptSession Op = "accept_session"
)

// Fault is what happens to calls. The zero Fault does nothing. If several faults meet one
// call, their delays add up, the first Err and the first LostAnswer hold, and all else
// happens that one of them says.
type Fault struct {
	// On is the call; empty means every call.
	On Op
	// Queue limits it to one queue; empty means all.
	Queue string
	// Times is how many calls it meets; 0 means all from now on.
	Times int
	// Rate is the share of calls that it meets, above 0 to 1; 0 means 1.
	Rate float64

	// Delay makes the call wait first; if its context ends meanwhile, the call fails.
	Delay time.Duration
	// Stall makes the call wait until its context ends.
	Stall bool
	// Err fails the call, which has no effect.
	Err error
	// LostAnswer fails the call after it had its effect. For Send, Settle and
	// Renew.
	LostAnswer error
	// Duplicate stores each message of a Send twice.
	Duplicate bool
	// Reorder shuffles what a Receive brings, but for messages of one session.
	Reorder bool
	// LoseLock gives the messages of a Receive back to the broker at once, so that
	// another receiver gets them, and settling them fails.
	LoseLock bool
}

// Throttle is the Err of a broker that asks to wait for so long; 0 is one that does not say
// how long.
func Throttle(retryAfter time.Duration) error {
	return &driver.Error{Kind: driver.Throttled, RetryAfter: retryAfter}
}

// Unavailable is the Err of a broker that cannot be reached.
func Unavailable() error { return driver.Errorf(driver.Unavailable, "injected") }

// faults are the active faults of a Proxy.
type faults struct {
	mu     sync.Mutex // guards what follows
	active []*Fault
	random *rand.Rand
}

// meet returns what happens to a call: all active faults in one.
func (f *faults) meet(op Op, queue string) Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	var sum Fault
	kept := f.active[:0]
	for _, x := range f.active {
		hit := (x.On == "" || x.On == op) && (x.Queue == "" || x.Queue == queue) &&
			(x.Rate == 0 || f.random.Float64() < x.Rate)
		if hit {
			sum.Delay += x.Delay
			sum.Stall = sum.Stall || x.Stall
			sum.Duplicate = sum.Duplicate || x.Duplicate
			sum.Reorder = sum.Reorder || x.Reorder
			sum.LoseLock = sum.LoseLock || x.LoseLock
			if sum.Err == nil {
				sum.Err = x.Err
			}
			if sum.LostAnswer == nil {
				sum.LostAnswer = x.LostAnswer
			}
			if x.Times > 0 {
				if x.Times--; x.Times == 0 {
					continue
				}
			}
		}
		kept = append(kept, x)
	}
	clear(f.active[len(kept):])
	f.active = kept
	return sum
}

func (f *faults) shuffle(d []*driver.Delivery) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.random.Shuffle(len(d), func(i, j int) {
		if d[i].SessionID == "" && d[j].SessionID == "" {
			d[i], d[j] = d[j], d[i]
		}
	})
}

// before waits as the fault asks, and returns the error that the call fails with.
func (f *Fault) before(ctx context.Context) error {
	if f.Stall {
		<-ctx.Done()
		return ctx.Err()
	}
	if f.Delay > 0 && !backoff.Sleep(ctx, f.Delay) {
		return ctx.Err()
	}
	return f.Err
}
