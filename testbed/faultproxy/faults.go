// Package faultproxy stands between a client and its broker and does to their traffic what
// networks and services do: it delays, drops, cuts in the middle, half-closes, falls
// silent, refuses, loses answers, lets answers overtake each other, and tells a wrong time.
//
// A [TCP] proxy knows no protocol; it also does what it is told. An [HTTP] proxy answers in a service's stead. A broker
// without a network, in memory or in a file, has its driver wrapped by [NewBroker]. All
// draw what happens from [Faults], which repeats itself for the same seed as far as the
// traffic does.
package faultproxy

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/queue-runtime/queue/backoff"
)

// Fault is one kind of what can go wrong.
type Fault uint8

// The faults. Not every proxy can do each.
const (
	None       Fault = iota
	Delay            // it passes later, by up to MaxDelay
	Drop             // the request does not arrive: the connection ends before
	LoseAnswer       // the request arrives, and the connection ends before the answer
	Cut              // the connection ends in the middle of what was being sent
	HalfClose        // one direction of the connection ends, and the other goes on
	Silence          // nothing passes any more, and nothing ends
	Refuse           // the connection, or the request, is refused
	WrongClock       // the answer tells a wrong time
	Reorder          // the answer comes after the answer to a later request
)

var names = [...]string{None: "none", Delay: "delay", Drop: "drop", LoseAnswer: "lose_answer", Cut: "cut",
	HalfClose: "half_close", Silence: "silence", Refuse: "refuse", WrongClock: "wrong_clock", Reorder: "reorder"}

func (f Fault) String() string { return names[f] }

// Faults draws faults at random. It is safe for concurrent use.
type Faults struct {
	// MaxDelay bounds a Delay, and the time that an answer is held for a Reorder.
	MaxDelay time.Duration

	mu     sync.Mutex // guards what follows
	random *rand.Rand
	every  int
	calm   bool
	counts map[Fault]int
}

// New returns Faults that let something go wrong once in every steps on average; a step is
// a request, or what a connection passes on at a time.
func New(seed uint64, every int) *Faults {
	return &Faults{
		MaxDelay: 200 * time.Millisecond,
		random:   rand.New(rand.NewPCG(seed, 0)), //nolint:gosec // G404: schedules that can be repeated
		every:    max(every, 1),
		counts:   make(map[Fault]int),
	}
}

// Calm ends all faults, except that what is silent stays so: a client has to find that out.
func (f *Faults) Calm() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calm = true
}

// draw returns one of the kinds, or None.
func (f *Faults) draw(kinds ...Fault) Fault {
	if f == nil {
		return None
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.calm || f.random.IntN(f.every) != 0 {
		return None
	}
	kind := kinds[f.random.IntN(len(kinds))]
	f.counts[kind]++
	return kind
}

// below returns a number from 0 to n-1.
func (f *Faults) below(n int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.random.IntN(n)
}

// pause waits for a random part of MaxDelay; false if ctx ends first.
func (f *Faults) pause(ctx context.Context) bool {
	return backoff.Sleep(ctx, time.Duration(f.below(int(f.MaxDelay)+1)))
}

// Counts returns how often each fault happened.
func (f *Faults) Counts() map[Fault]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.counts)
}

// String says how often each fault happened.
func (f *Faults) String() string {
	counts := f.Counts()
	var all []string
	for _, kind := range slices.Sorted(maps.Keys(counts)) {
		all = append(all, fmt.Sprintf("%d %s", counts[kind], kind))
	}
	return strings.Join(all, ", ")
}
