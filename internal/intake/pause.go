package intake

import "time"

// How long a receiver leaves messages alone while no key opens any: doubling from a
// second, so that a blip costs little, to five minutes, so that a corrected secret is
// met soon.
const (
	FirstPause = time.Second
	MaxPause   = 5 * time.Minute
)

// pauseState is the state of a pause.
type pauseState uint8

const (
	receiving pauseState = iota
	paused               // leave the messages alone until probeAt
	probing              // one caller finds out whether messages open now
)

// pause is the state machine that stops a receiver whose keys open nothing: receiving
// -> paused -> probing -> receiving or paused. Its methods are its transitions. A wrong
// key must not spend the deliveries of a backlog.
type pause struct {
	state   pauseState
	delay   time.Duration // until the next probe; 0 before the first, and while receiving
	probeAt time.Time     // while paused: when to probe. While probing: when others look again
}

// begin stops receiving, and reports whether it was not stopped before. The first probe
// follows after first.
func (p *pause) begin(now time.Time, first time.Duration) bool {
	if p.state != receiving {
		return false
	}
	p.state, p.delay, p.probeAt = paused, first, now.Add(first)
	return true
}

// due reports whether a caller should probe now.
func (p *pause) due(now time.Time) bool { return p.state == paused && !now.Before(p.probeAt) }

// probe gives the turn to the caller; others wait in the meantime.
func (p *pause) probe(now time.Time) {
	p.state = probing
	p.probeAt = now.Add(max(p.delay, FirstPause))
}

// until is when a caller that may not fetch should look again. It is always ahead of
// now: a caller that waited for an instant that has passed would spin.
func (p *pause) until(now time.Time) time.Time {
	if !now.Before(p.probeAt) {
		return now.Add(FirstPause)
	}
	return p.probeAt
}

// fail ends a probe that found no message that opens.
func (p *pause) fail(now time.Time) {
	if p.state == probing {
		p.delay = min(max(2*p.delay, FirstPause), MaxPause)
		p.state, p.probeAt = paused, now.Add(p.delay)
	}
}

// idle ends a probe that found nothing out.
func (p *pause) idle(now time.Time) {
	if p.state == probing {
		p.delay = max(p.delay, FirstPause)
		p.state, p.probeAt = paused, now.Add(p.delay)
	}
}

// end notes that a message opened, and reports whether receiving was stopped.
func (p *pause) end() (ended bool) {
	ended = p.state != receiving
	*p = pause{}
	return ended
}
