package sbqueue

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
)

// linkPool has the links over which a queue is received from. The SDK allows one call at a
// time over a link, so several calls of Receive have one each. To make a link takes some
// twenty round trips, of which the SDK lets those of the claims happen for one link at a time:
// so they are made one after the other, in the background, while calls wait for whichever
// link is free first. It is safe for concurrent use.
//
// Invariants: the link that was used last is used next, so that those that are not needed
// get no more credit. As long as calls wait, a link is in use or being made.
type linkPool struct {
	s    *source
	make func(*azservicebus.Client) (*azservicebus.Receiver, error)

	mu      sync.Mutex // guards what follows
	idle    []*link    // in the order of use
	waiting []chan made
	alive   int // links in use, idle and being made
	making  bool
}

// made is a link that a call waited for, or why there is none.
type made struct {
	l   *link
	err error
}

// maxLinks is how many calls of Receive are under way at once.
const maxLinks = 32

// take returns a link. It waits for one until ctx or the source ends.
func (p *linkPool) take(ctx context.Context) (*link, error) {
	p.mu.Lock()
	if n := len(p.idle); n > 0 {
		l := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		return l, nil
	}
	ready := make(chan made, 1)
	p.waiting = append(p.waiting, ready)
	p.grow()
	p.mu.Unlock()
	select {
	case m := <-ready:
		return m.l, m.err
	case <-ctx.Done():
	case <-p.s.over.Done():
	}
	p.mu.Lock()
	p.waiting = slices.DeleteFunc(p.waiting, func(c chan made) bool { return c == ready })
	p.mu.Unlock()
	select {
	case m := <-ready: // meanwhile
		return m.l, m.err
	default:
	}
	if p.s.over.Err() != nil {
		return nil, errClosed()
	}
	return nil, ctx.Err()
}

// put has another call use a link.
func (p *linkPool) put(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.give(l)
}

// give is put under mu.
func (p *linkPool) give(l *link) {
	switch {
	case l.up.Err() != nil: // found dead meanwhile
	case p.s.over.Err() != nil:
		l.retire()
	case len(p.waiting) > 0:
		p.answer(made{l: l})
	default:
		p.idle = append(p.idle, l)
	}
}

// answer ends the wait of the first that waits. Called under mu.
func (p *linkPool) answer(m made) {
	p.waiting[0] <- m
	p.waiting = p.waiting[1:]
}

// drop gives up a link that is dead. It takes those along that are not in use: as a rule the
// connection was lost, and the SDK closes the next one if one of them is used.
func (p *linkPool) drop(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.up.Err() != nil {
		return // by an earlier call: those that are idle now were made since
	}
	dead := p.idle
	if p.idle = nil; !slices.Contains(dead, l) {
		dead = append(dead, l)
	}
	for _, l := range dead {
		l.down()
		l.retire()
	}
	p.alive -= len(dead)
	p.grow()
}

// grow makes another link if a call waits for one. Called under mu.
func (p *linkPool) grow() {
	if len(p.waiting) == 0 || p.making || p.alive == maxLinks || p.s.over.Err() != nil || !p.s.q.b.begin(1) {
		return
	}
	p.making = true
	p.alive++
	further := p.alive > 1
	go func() {
		defer p.s.q.b.calls.Done()
		p.finish(p.connect(further))
	}()
}

// connect makes a link, after the one that settles what comes by it: that takes some round
// trips, which the first renewal of a lock might not have the time for.
func (p *linkPool) connect(further bool) (*link, error) {
	b, l := p.s.q.b, p.s.q.newLink()
	if err := p.s.connectControlLink(); err != nil {
		return l, err
	}
	return l, b.linkTurn(p.s.over, further, func() error {
		client, life := b.main.client()
		ctx, cancel := context.WithTimeout(p.s.over, connectTime)
		defer cancel()
		defer context.AfterFunc(life, cancel)()
		began := time.Now()
		r, err := p.make(client)
		if err == nil {
			l.r = r
			l.made(r, life)
			err = b.overLife(life, askNothing(ctx, r))
		}
		b.main.note(began, err)
		return err
	})
}

// finish takes in a link that was being made.
func (p *linkPool) finish(l *link, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.making = false
	if err == nil {
		p.give(l)
		p.grow()
		return
	}
	p.alive--
	l.down()
	l.retire()
	if p.alive > 0 { // those that wait get one that is in use
		return
	}
	if len(p.waiting) > 0 {
		p.answer(made{err: err})
	}
	p.grow()
}

// close closes the links that are not in use.
func (p *linkPool) close(ctx context.Context) error {
	p.mu.Lock()
	idle := p.idle
	p.idle = nil
	p.mu.Unlock()
	all := make([]closer, len(idle))
	for i, l := range idle {
		l.down()
		all[i] = closing(l.close)
	}
	return p.s.q.b.closeAll(ctx, all, closeLink)
}
