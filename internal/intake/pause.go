package intake

import "time"

// ProbeInterval is how often a paused receiver tries one message. Each costs a wrongly
// keyed receiver one dead letter, so that a night loses a thousand and not a backlog.
const ProbeInterval = 30 * time.Second

// pauseState is the state of a pause.
type pauseState uint8

const (
	receiving pauseState = iota
	paused               // one message is tried every ProbeInterval
)

// pause is the state machine that stops a receiver after authentication failures in a
// row: receiving -> paused -> receiving. A wrong key must not drain a backlog into the
// dead-letter queue.
type pause struct {
	state    pauseState
	failures int       // in a row
	probeAt  time.Time // while paused: when the next message may be tried
}

// due reports whether a caller may try one message now.
func (p *pause) due(now time.Time) bool { return p.state == paused && !now.Before(p.probeAt) }

// probe gives the turn to the caller.
func (p *pause) probe(now time.Time) { p.probeAt = now.Add(ProbeInterval) }

// fail counts an authentication failure, and reports whether it began the pause.
func (p *pause) fail(now time.Time, limit int) (began bool) {
	p.failures++
	if p.state == paused || p.failures < limit {
		return false
	}
	p.state, p.probeAt = paused, now.Add(ProbeInterval)
	return true
}

// opened notes a message that authenticated, and reports whether it ended the pause.
func (p *pause) opened() (ended bool) {
	ended = p.state == paused
	*p = pause{}
	return ended
}
