package intake

import (
	"time"

	"github.com/queue-runtime/queue/keys"
)

// How long something that does not answer is left alone: doubling from a second, so
// that a blip costs little, to half a minute, so that receiving comes back soon after
// a long outage.
const (
	FirstDelay = time.Second
	MaxDelay   = 30 * time.Second
)

// Outage says what does not answer.
type Outage struct {
	Reason string  // driver.ReasonKeyProvider or driver.ReasonReplayStore
	KeyID  keys.ID // the key that could not be had; for the key provider
	Cause  error
}

// outageState is the state of an outage.
type outageState uint8

const (
	answering outageState = iota // all is well
	away                         // leave it alone until retryAt
	asking                       // one caller finds out whether it answers again
)

// outage is the state machine of something that messages need: answering -> away ->
// asking -> answering or away. Its methods are its transitions.
type outage struct {
	state   outageState
	what    Outage        // unless answering
	delay   time.Duration // unless answering
	retryAt time.Time     // while away: when to ask. While asking: when others look again
}

// due reports whether a caller should ask now.
func (o *outage) due(now time.Time) bool { return o.state == away && !now.Before(o.retryAt) }

// ask begins a question; others wait for a delay in the meantime.
func (o *outage) ask(now time.Time) Outage {
	o.state = asking
	o.retryAt = now.Add(o.delay)
	return o.what
}

// until is when a caller that may not fetch should look again. It is always ahead of
// now: a caller that waited for an instant that has passed would spin.
func (o *outage) until(now time.Time) time.Time {
	if !now.Before(o.retryAt) {
		return now.Add(o.delay)
	}
	return o.retryAt
}

// fail notes that it does not answer, and returns how long to leave it alone. asked
// says that this is the answer to ask; other failures, of messages that were on their
// way, change a running outage no more.
func (o *outage) fail(now time.Time, what Outage, asked bool) time.Duration {
	switch {
	case o.state == answering:
		o.delay = FirstDelay
	case asked:
		o.delay = min(2*o.delay, MaxDelay)
	default:
		return o.delay
	}
	o.state, o.what, o.retryAt = away, what, now.Add(o.delay)
	return o.delay
}

// idle ends a question that found nothing out.
func (o *outage) idle() {
	if o.state == asking {
		o.state = away
	}
}

// pass ends a question that found nothing out and may be asked again at once.
func (o *outage) pass(now time.Time) {
	if o.state == asking {
		o.state, o.retryAt = away, now
	}
}

// recover notes that it answers, and returns the reason of the outage that is over.
func (o *outage) recover() string {
	reason := o.what.Reason
	*o = outage{}
	return reason
}
