package intake

import (
	"context"
	"sync"
	"time"

	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/keys"
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

// Change is told when a receiver stops or resumes, or a key is suspended.
type Change struct {
	Kind   ChangeKind
	Reason string  // of the outage, or driver.ReasonAuthentication
	Cause  error   // of an outage that began
	KeyID  keys.ID // the key that opens nothing; for Suspended, and Stopped by a pause
}

// ChangeKind says what changed.
type ChangeKind uint8

// The changes.
const (
	Stopped   ChangeKind = iota // nothing is fetched any more
	Resumed                     // messages are fetched again
	Suspended                   // messages under one key are given back; others are handled
)

// KeyState is what is known of the key of a message that failed.
type KeyState uint8

// The states.
const (
	NoneWorks  KeyState = iota // no key of this receiver has opened a message: its secrets may be wrong
	OtherWorks                 // another key opens messages, and receiving goes on
	KeyWorks                   // the key opens messages: this one is forged
)

// Failure is what follows for a message that did not authenticate.
type Failure struct {
	Wait  time.Duration // for which the message is given back, unless KeyWorks
	State KeyState
}

// GateOptions configure a [Gate].
type GateOptions struct {
	// MaxAuthFailures is how many messages may fail under a key that has opened none
	// before it is suspended; at least 1.
	MaxAuthFailures int
	// Ask finds out without a message whether an outage is over. Its context ends after
	// AskTimeout.
	Ask func(context.Context, Outage) Answer
	// Check is called before each fetch. It returns what the fetch could only do harm
	// for, nil if there is nothing. Nil means no check.
	Check func() *Outage
	// Peek finds out at no message's cost whether messages open now. What opened it has
	// noted itself. Its context ends after AskTimeout. Nil means that the broker cannot
	// peek: a message is fetched instead.
	Peek func(context.Context) (keys.ID, Answer)
	// Tell is called after each change, outside of the Gate's lock.
	Tell func(context.Context, Change)
	// Paused is the error while receiving pauses; retry is in how long it may go on.
	Paused func(retry time.Duration) error
}

// Gate lets a receiver fetch, or not: fetching could only do harm while no key opens
// messages, which may be a wrong secret, and while something that each message needs is
// away. Each delivery would be spent for nothing. It is safe for concurrent use.
type Gate struct {
	o GateOptions

	mu     sync.Mutex // guards what follows; never held across a call
	outage outage
	trials trials
	pause  pause
}

// NewGate returns an open Gate.
func NewGate(o GateOptions) *Gate { return &Gate{o: o} }

// Permit allows one fetch. It ends once: by Answered, by a failure, by Passed, or by Idle. What
// was found of the messages is noted on it as it is found. It belongs to one goroutine.
type Permit struct {
	g     *Gate
	Max   int   // how many messages may be fetched
	Late  bool  // something was waited for before, or asked
	probe probe // what the fetch tests
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
	peekNow
	askNow
	wait
)

// next decides. It is called under mu.
func (g *Gate) next() step {
	if g.outage.state == answering && g.pause.state == receiving {
		return step{kind: fetch}
	}
	now := time.Now()
	switch {
	case g.outage.due(now):
		return step{kind: askNow, outage: g.outage.ask(now)}
	case g.outage.state != answering:
		return step{kind: wait, until: g.outage.until(now), err: g.outage.what.Cause}
	case g.pause.due(now):
		g.pause.probe(now)
		return step{kind: peekNow}
	}
	until := g.pause.until(now)
	return step{kind: wait, until: until, err: g.o.Paused(until.Sub(now))}
}

// Admit waits until messages may be fetched, for longest at most; then
// its error says why none may. It returns a Permit for at most limit messages.
func (g *Gate) Admit(ctx context.Context, limit int, longest time.Duration) (Permit, error) {
	var deadline time.Time // set before anything is waited for
	for {
		g.mu.Lock()
		s := g.next()
		g.mu.Unlock()
		if deadline.IsZero() && s.kind != fetch {
			deadline = time.Now().Add(longest)
		}
		switch s.kind {
		case fetch:
			p := Permit{g: g, Max: limit, Late: !deadline.IsZero()}
			if o := g.check(); o != nil {
				p.Unanswered(ctx, *o)
				continue
			}
			return p, nil
		case peekNow, askNow:
			p, err := g.find(ctx, s)
			p.Late = true
			if err != nil || p.g != nil {
				return p, err
			}
			continue
		}
		over := !s.until.Before(deadline)
		if over {
			s.until = deadline
		}
		if !backoff.Sleep(ctx, time.Until(s.until)) {
			return Permit{}, ctx.Err()
		}
		if over {
			return Permit{}, s.err
		}
	}
}

// check returns what a fetch could only do harm for.
func (g *Gate) check() *Outage {
	if g.o.Check == nil {
		return nil
	}
	return g.o.Check()
}

// find finds out what the step names.
func (g *Gate) find(ctx context.Context, s step) (Permit, error) {
	if s.kind == askNow {
		return g.ask(ctx, s.outage)
	}
	return g.peek(ctx)
}

// peek finds out whether messages open now. It returns a Permit if only a message can
// tell.
func (g *Gate) peek(ctx context.Context) (Permit, error) {
	p := Permit{g: g, Max: 1, probe: pauseProbe}
	if g.o.Peek == nil {
		return p, nil
	}
	defer func() { p.Idle() }() // if Peek panics, others must be able to probe
	actx, cancel := context.WithTimeout(ctx, AskTimeout)
	id, answer := g.o.Peek(actx)
	cancel()
	switch {
	case ctx.Err() != nil:
		return Permit{}, ctx.Err()
	case answer == NeedsMessage:
		out := p
		p = Permit{} // ends with the fetch
		return out, nil
	case answer == Back:
		p.Opened(ctx, id)
	default:
		p.closed()
	}
	return Permit{}, nil
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
	p.g.o.Tell(ctx, Change{Kind: Resumed, Reason: reason})
}

// Passed notes that a message was judged without what was away, as one that is forged or
// malformed: the next message may tell, and is fetched without a delay. Otherwise a forgery
// at the head of the queue could make an outage last.
func (p *Permit) Passed() {
	if p.probe != outageProbe {
		return
	}
	p.probe = noProbe
	p.g.mu.Lock()
	defer p.g.mu.Unlock()
	p.g.outage.pass(time.Now())
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
		g.o.Tell(ctx, Change{Kind: Resumed, Reason: before})
	}
	g.o.Tell(ctx, Change{Kind: Stopped, Reason: after, Cause: o.Cause})
	return delay
}

// Opened notes that messages open under a key, and reports whether that is news.
func (p *Permit) Opened(ctx context.Context, id keys.ID) (first bool) {
	g := p.g
	g.mu.Lock()
	first = g.trials.opened(id)
	ended := g.pause.end()
	g.mu.Unlock()
	if p.probe == pauseProbe {
		p.probe = noProbe
	}
	if ended {
		g.o.Tell(ctx, Change{Kind: Resumed, Reason: driver.ReasonAuthentication})
	}
	return first
}

// Failed notes a message that did not authenticate. spent says that it has few deliveries
// left: few messages that come again and again would otherwise be dead letters before so
// many have failed.
func (p *Permit) Failed(ctx context.Context, id keys.ID, spent bool) Failure {
	g := p.g
	now := time.Now()
	g.mu.Lock()
	t := g.trials.get(id)
	began := t.fail(now, g.o.MaxAuthFailures, spent)
	f := Failure{Wait: t.delay, State: g.trials.stateOf(t)}
	stopped := false
	if t.state == suspended && f.State == NoneWorks {
		stopped = g.pause.begin(now, g.firstProbe())
	}
	if p.probe == pauseProbe {
		g.pause.fail(now)
		p.probe = noProbe
	}
	f.Wait = max(f.Wait, g.pause.delay)
	g.mu.Unlock()
	switch {
	case stopped:
		g.o.Tell(ctx, Change{Kind: Stopped, Reason: driver.ReasonAuthentication, KeyID: id})
	case began && f.State == OtherWorks:
		g.o.Tell(ctx, Change{Kind: Suspended, Reason: driver.ReasonAuthentication, KeyID: id})
	}
	return f
}

// firstProbe is how soon the first probe follows: at once if it costs no message.
func (g *Gate) firstProbe() time.Duration {
	if g.o.Peek != nil {
		return 0
	}
	return FirstPause
}

// closed ends a pauseProbe that found no message that opens.
func (p *Permit) closed() {
	p.probe = noProbe
	p.g.mu.Lock()
	p.g.pause.fail(time.Now())
	p.g.mu.Unlock()
}

// Idle ends a permit whose fetch found nothing out. After another end, and on the zero
// Permit, it does nothing.
func (p *Permit) Idle() {
	what := p.probe
	if what == noProbe {
		return
	}
	p.probe = noProbe
	p.g.mu.Lock()
	defer p.g.mu.Unlock()
	if what == outageProbe {
		p.g.outage.idle()
		return
	}
	p.g.pause.idle(time.Now())
}
