package queue

import (
	"context"
	"sync"
	"time"

	"github.com/queue-runtime/queue/internal/intake"
	"github.com/queue-runtime/queue/internal/sealing"
	"github.com/queue-runtime/queue/keys"
)

// How long a list of valid keys is believed, and how often a message with an
// unknown key may cause a look at a new one: gateBurst times at once, then once
// every gateInterval. So a flood of forged key IDs costs the key provider a
// bounded rate of calls, however many messages it has.
const (
	gateTTL      = time.Minute
	gateStale    = 15 * time.Minute // while the provider does not answer
	gateInterval = 10 * time.Second
	gateBurst    = 3
	gateRetry    = intake.FirstDelay // for which a failure of the provider is believed
)

// keyGate knows which key IDs a queue's receiver accepts, without asking the
// provider for each message. Nothing in a message is authenticated when the gate
// is asked.
type keyGate struct {
	keys keys.Provider

	turn chan struct{} // holds one token: who has it may ask the provider

	mu      sync.Mutex // guards the fields below; never held across a call
	valid   map[keys.ID]struct{}
	asked   time.Time // when valid was last fetched
	failed  time.Time // when the provider last failed to answer
	err     error     // how; nil once it has answered
	credit  int       // looks left
	credits time.Time // when credit was last topped up
}

func newKeyGate(p keys.Provider) *keyGate {
	g := &keyGate{keys: p, turn: make(chan struct{}, 1), credit: gateBurst}
	g.turn <- struct{}{}
	return g
}

// Valid reports whether id is a valid key now.
func (g *keyGate) Valid(ctx context.Context, id keys.ID) (bool, error) {
	known, current, _ := g.look(id)
	if known && current {
		return true, nil
	}
	select {
	case <-g.turn:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	defer func() { g.turn <- struct{}{} }()

	// Somebody may have asked while this goroutine waited.
	known, current, usable := g.look(id)
	if known && current {
		return true, nil
	}
	if current && !g.spend() {
		return false, nil
	}
	ids, err := g.ask(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if usable && known {
			return true, nil // an old list still says who was valid
		}
		return false, sealing.ProviderError(ctx, err)
	}
	set := make(map[keys.ID]struct{}, len(ids))
	for _, v := range ids {
		set[v] = struct{}{}
	}
	g.mu.Lock()
	g.valid, g.asked = set, time.Now()
	g.mu.Unlock()
	_, known = set[id]
	return known, nil
}

// ask asks the provider, whose turn the caller has, unless it has just failed: a
// batch of messages must not wait for it one after the other.
func (g *keyGate) ask(ctx context.Context) ([]keys.ID, error) {
	g.mu.Lock()
	err, failed := g.err, g.failed
	g.mu.Unlock()
	if err != nil && time.Since(failed) < gateRetry {
		return nil, err
	}
	ids, err := g.keys.ValidKeyIDs(ctx)
	if err != nil && ctx.Err() != nil {
		return nil, err // says nothing of the provider
	}
	g.mu.Lock()
	g.err, g.failed = err, time.Now()
	g.mu.Unlock()
	return ids, err
}

// look consults the list at hand: whether it has id, whether it is current, and
// whether it may still serve while the provider does not answer.
func (g *keyGate) look(id keys.ID) (known, current, usable bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, known = g.valid[id]
	age := time.Since(g.asked)
	return known, g.valid != nil && age < gateTTL, g.valid != nil && age < gateStale
}

// spend takes one look out of the credit and reports whether there was one.
func (g *keyGate) spend() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if n := int(now.Sub(g.credits) / gateInterval); n > 0 {
		g.credit = min(gateBurst, g.credit+n)
		g.credits = now
	}
	if g.credit == 0 {
		return false
	}
	g.credit--
	return true
}
