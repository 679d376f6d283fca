package intake

import (
	"context"
	"sync"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// AskTimeout bounds one question whether something answers again. Only one caller asks
// at a time, so that one that hung would be the last.
const AskTimeout = 15 * time.Second

// Answer is the result of a check whether an outage is over.
type Answer uint8

// The answers.
const (
	Away         Answer = iota // it does not answer
	Back                       // it answers
	NeedsMessage               // only a message can tell
)

// Change says that a receiver stopped or resumed.
type Change struct {
	Stopped bool   // else it resumed
	Reason  string // of the outage, or driver.ReasonAuthentication for a pause
	Cause   error  // of an outage that began
}

// GateOptions configure a [Gate].
type GateOptions struct {
	MaxAuthFailures int // in a row, after which receiving pauses; at least 1
	// Ask finds out without a message whether an outage is over. Its context ends after
	// AskTimeout.
	Ask func(context.Context, Outage) Answer
	// Tell is called after each change, outside of the Gate's lock.
	Tell func(context.Context, Change)
	// Paused is the error while receiving pauses; retry is in how long it may go on.
	Paused func(retry time.Duration) error
}

// Gate lets a receiver fetch, or not: fetching could only do harm after a row of
// authentication failures, which dead-letter, and while something that each message
// needs is away, when each delivery would be spent for nothing. It is safe for
// concurrent use.
type Gate struct {
	o GateOptions

	mu     sync.Mutex // guards what follows; never held across a call
	outage outage
	pause  pause
}

// NewGate returns an open Gate.
func NewGate(o GateOptions) *Gate { return &Gate{o: o} }

// Permit allows one fetch. It ends once: by Answered, by a failure, or by Idle. What
// was found of the messages is noted on it as it is found. It belongs to one goroutine.
type Permit struct {
	g     *Gate
	Max   int   // how many messages may be fetched
	probe probe // what the fetch finds out
}

// probe says what a fetch of one message tests.
type probe uint8

const (
	noProbe     probe = iota
	outageProbe       // whether what was away answers; until it ends no other caller asks
	pauseProbe        // whether messages authenticate again
)

// step is what a caller of Admit does next.
type step struct {
	kind   stepKind
	outage Outage    // for askNow
	until  time.Time // for wait
	err    error     // for wait: why nothing may be fetched
}

type stepKind uint8

const (
	fetch stepKind = iota
	probeOne
	askNow
	wait
)

// next decides. It is called under mu.
func (g *Gate) next(now time.Time) step {
	switch {
	case g.outage.due(now):
		return step{kind: askNow, outage: g.outage.ask(now)}
	case g.outage.state != answering:
		return step{kind: wait, until: g.outage.until(now), err: g.outage.what.Cause}
	case g.pause.due(now):
		g.pause.probe(now)
		return step{kind: probeOne}
	case g.pause.state == paused:
		return step{kind: wait, until: g.pause.probeAt, err: g.o.Paused(g.pause.probeAt.Sub(now))}
	}
	return step{kind: fetch}
}

// Admit waits until messages may be fetched, for longest at most; then
// its error says why none may. It returns a Permit for at most limit messages.
func (g *Gate) Admit(ctx context.Context, limit int, longest time.Duration) (Permit, error) {
	var deadline time.Time
	for {
		now := time.Now()
		if deadline.IsZero() {
			deadline = now.Add(longest)
		}
		g.mu.Lock()
		s := g.next(now)
		g.mu.Unlock()
		switch s.kind {
		case fetch:
			return Permit{g: g, Max: limit}, nil
		case probeOne:
			return Permit{g: g, Max: 1, probe: pauseProbe}, nil
		case askNow:
			p, err := g.ask(ctx, s.outage)
			if err != nil || p.g != nil {
				return p, err
			}
			continue
		}
		over := !s.until.Before(deadline)
		if over {
			s.until = deadline
		}
		if !sleepUntil(ctx, s.until) {
			return Permit{}, ctx.Err()
		}
		if over {
			return Permit{}, s.err
		}
	}
}

// ask finds out whether the outage is over. It returns a Permit if only a message can
// tell.
func (g *Gate) ask(ctx context.Context, o Outage) (Permit, error) {
	p := Permit{g: g, Max: 1, probe: outageProbe}
	defer func() { p.Idle() }() // if Ask panics, others must be able to ask
	actx, cancel := context.WithTimeout(ctx, AskTimeout)
	answer := g.o.Ask(actx, o)
	cancel()
	switch {
	case ctx.Err() != nil:
		return Permit{}, ctx.Err()
	case answer == NeedsMessage:
		out := p
		p = Permit{} // ends with the fetch
		return out, nil
	case answer == Back:
		p.Answered(ctx)
	default:
		p.Unanswered(ctx, o)
	}
	return Permit{}, nil
}

// Answered notes that a message was had in full: what was away answers again.
func (p *Permit) Answered(ctx context.Context) {
	if p.probe != outageProbe {
		return
	}
	p.probe = noProbe
	p.g.mu.Lock()
	reason := p.g.outage.recover()
	p.g.mu.Unlock()
	if reason != "" {
		p.g.o.Tell(ctx, Change{Reason: reason})
	}
}

// Unanswered notes that something which a message needs did not answer, and returns
// how long to leave it alone.
func (p *Permit) Unanswered(ctx context.Context, o Outage) time.Duration {
	asked := p.probe == outageProbe
	if asked {
		p.probe = noProbe
	}
	g := p.g
	g.mu.Lock()
	before := g.outage.what.Reason
	delay := g.outage.fail(time.Now(), o, asked)
	after := g.outage.what.Reason
	g.mu.Unlock()
	if before == after {
		return delay
	}
	if before != "" { // another thing is away now: one reason at a time
		g.o.Tell(ctx, Change{Reason: before})
	}
	g.o.Tell(ctx, Change{Stopped: true, Reason: after, Cause: o.Cause})
	return delay
}

// Opened notes a message that authenticated.
func (p *Permit) Opened(ctx context.Context) {
	p.g.mu.Lock()
	ended := p.g.pause.opened()
	p.g.mu.Unlock()
	if ended {
		p.g.o.Tell(ctx, Change{Reason: driver.ReasonAuthentication})
	}
}

// Forged notes a message that did not authenticate. It reports whether receiving had
// paused since the fetch: such a message is given back and not dead-lettered. The
// message of a probe is the exception, because it was fetched to find out.
func (p *Permit) Forged(ctx context.Context) (late bool) {
	g := p.g
	g.mu.Lock()
	late = g.pause.state == paused && p.probe != pauseProbe
	began := g.pause.fail(time.Now(), g.o.MaxAuthFailures)
	g.mu.Unlock()
	if began {
		g.o.Tell(ctx, Change{Stopped: true, Reason: driver.ReasonAuthentication})
	}
	return late
}

// Idle ends a permit whose fetch found nothing out. After another end, and on the zero
// Permit, it does nothing.
func (p *Permit) Idle() {
	if p.probe != outageProbe {
		return
	}
	p.probe = noProbe
	p.g.mu.Lock()
	p.g.outage.idle()
	p.g.mu.Unlock()
}

// sleepUntil waits until t and reports false if ctx ended first.
func sleepUntil(ctx context.Context, t time.Time) bool {
	d := time.Until(t)
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
