package intake

import (
	"time"

	"github.com/queue-runtime/queue/driver"
)

// This file says what becomes of a message. Whether one is rejected is found before, in
// the Receiver's pipeline (rejection.go of package queue).

// Finding says what the pipeline found of a message.
type Finding uint8

// The findings.
const (
	Unseen    Finding = iota // nothing is known: the caller left, or a message before it blocks its session
	Good                     // to be delivered
	Duplicate                // handled before; only its completion was lost
	Rejected                 // not to be delivered, for Verdict.Reason
)

// Verdict is what was found of one message.
type Verdict struct {
	Finding Finding
	Reason  string // a driver.Reason code; for Rejected
	Count   int    // deliveries so far, this one included
	// Wait is until the reason may be over: until the message is due, or its claim ends;
	// for an outage, or a key that has opened nothing, how long to leave the message
	// alone. For an unknown key or version it is the longest delay; 0 means any.
	Wait time.Duration
	// Final: time does not cure the reason. The version was not announced, the wait of
	// the session is over, or the key opens other messages.
	Final bool
}

// Policy is how a receiver treats what it rejects, and what its broker can do.
type Policy struct {
	MaxDeliveries   int           // after which a message with an unknown key or version is dead-lettered; at least 1
	RotationHorizon time.Duration // over which its deliveries are spread
	Delays          bool          // the broker delays what is given back
	MaxDelay        time.Duration // the longest such delay; 0 means no limit
	InOrder         bool          // of a session: nothing overtakes a message that must wait
}

// Action is what is to be done with one message.
type Action struct {
	Disposition driver.Disposition // "" means that the message is delivered
	// Kind is how to settle it. 0 for a message that is delivered, and for one whose
	// lock is left to run out, because the broker has no other delay.
	Kind  driver.SettleKind
	Delay time.Duration // until it should be delivered again; for Abandoned and Released
	// Blocks: nothing of its session may be delivered before it.
	Blocks bool
}

// minWait keeps a message that is early by the difference of two clocks from coming
// round at once.
const minWait = time.Millisecond

// Decide says what is to be done with a message: the table of DESIGN.md, "What becomes
// of a message".
func Decide(v Verdict, p Policy) Action {
	switch v.Finding {
	case Good:
		return Action{}
	case Duplicate:
		return Action{Disposition: driver.Completed, Kind: driver.Complete}
	case Unseen:
		return Action{Disposition: driver.Released, Kind: driver.Release}
	}
	switch v.Reason {
	case driver.ReasonAuthentication:
		if !v.Final {
			return giveBack(driver.Release, v.Wait, p)
		}
	case driver.ReasonUnsupportedVersion, driver.ReasonKeyNotFound:
		if !v.Final && v.Count < p.MaxDeliveries {
			delay := spread(v.Count, p.MaxDeliveries, p.RotationHorizon)
			if v.Wait > 0 {
				delay = min(delay, max(v.Wait, minSpread))
			}
			return giveBack(driver.Abandon, delay, p)
		}
	case driver.ReasonKeyProvider, driver.ReasonReplayStore, driver.ReasonQuota, "":
		return giveBack(driver.Release, v.Wait, p) // nothing was found against the message
	case driver.ReasonMessageFromFuture:
		return giveBack(driver.Release, max(v.Wait, minWait), p)
	case driver.ReasonNonceBusy:
		return giveBack(driver.Abandon, v.Wait, p)
	}
	return Action{Disposition: driver.DeadLettered, Kind: driver.MoveToDeadLetter}
}

// giveBack gives a message back after a delay, as far as the broker can.
func giveBack(kind driver.SettleKind, delay time.Duration, p Policy) Action {
	a := Action{Disposition: kind.Disposition(), Kind: kind, Delay: delay, Blocks: p.InOrder}
	switch {
	case delay > 0 && !p.Delays:
		a.Kind = 0 // the lock is the delay
	case p.MaxDelay > 0:
		a.Delay = min(delay, p.MaxDelay)
	}
	return a
}

// The first delay of spread is not halved below minSpread: a broker's timer is not
// finer. maxDoublings keeps the unit above it for every horizon of seconds.
const (
	minSpread    = 10 * time.Millisecond
	maxDoublings = 20
)

// spread returns the delay after delivery count of limit, so that the delays double
// and add up to horizon.
func spread(count, limit int, horizon time.Duration) time.Duration {
	steps := limit - 1 // delays between limit deliveries
	if steps < 1 {
		return horizon
	}
	count = min(max(count, 1), steps)
	if steps > maxDoublings {
		if count <= steps-maxDoublings {
			return time.Second
		}
		count, steps = count-(steps-maxDoublings), maxDoublings
	}
	unit := horizon / time.Duration(int64(1)<<steps-1)
	return max(unit<<(count-1), minSpread)
}
