// Package replaytest is the suite that every [replay.NonceStore] passes: each
// transition of its contract, retention, races, and a store that is full.
//
// It cannot show that a store survives a crash or is one over several
// processes; a store that claims so has tests of its own for it.
package replaytest

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/replay"
)

// Options says how to run the suite.
type Options struct {
	// New returns an empty store, and has t clean it up. max is how many
	// records it is to have room for, 0 for its default. Required.
	New func(t *testing.T, max int) replay.NonceStore
	// Bounded says that New heeds max and that the store answers ErrFull
	// beyond it.
	Bounded bool
	// Advance returns once the store's clock, and time.Now, have moved on by
	// d at least. Nil runs each test in a bubble of testing/synctest, where a
	// sleep takes no time; a store that waits for anything outside of the
	// process needs one, for example time.Sleep.
	Advance func(d time.Duration)
	// Tick is the unit of all leases and times in the suite, and what a test
	// may be late by at most: a few hundred milliseconds by a real clock. 0
	// means 1 minute.
	Tick time.Duration
	// Slack is for how much longer than asked the store may keep a record,
	// because it rounds up or sweeps at intervals.
	Slack time.Duration
}

// Run runs the suite as subtests of t.
func Run(t *testing.T, o Options) {
	t.Helper()
	if o.New == nil {
		t.Fatal("replaytest: Options.New is required")
	}
	if o.Tick == 0 {
		o.Tick = time.Minute
	}
	// The FIPS 140-3 module seeds its generator by measuring time, which stands
	// still in a bubble; so have it done before the first one.
	_, _ = rand.Read(make([]byte, 1))
	for _, c := range []struct {
		name string
		run  func(*trial)
	}{
		{"claim", claim},
		{"groups and IDs are apart", apart},
		{"bounds", bounds},
		{"busy", busy},
		{"lease over", leaseOver},
		{"late calls of an old holder", lateCalls},
		{"renew", renew},
		{"release", release},
		{"consume", consume},
		{"consume after the lease", consumeLate},
		{"duplicate", duplicate},
		{"not fresh", notFresh},
		{"retry window", retryWindow},
		{"retain consumed", retainConsumed},
		{"retain claimed", retainClaimed},
		{"a lease outlasts retention", leaseOutlasts},
		{"retention by the receiver's clock", otherClock},
		{"one of many wins", oneWins},
		{"many IDs at once", manyIDs},
		{"late consume against new claim", consumeRace},
		{"full", full},
	} {
		t.Run(c.name, func(t *testing.T) {
			if o.Advance != nil {
				c.run(&trial{T: t, o: o, advance: o.Advance})
				return
			}
			synctest.Test(t, func(t *testing.T) { c.run(&trial{T: t, o: o, advance: time.Sleep}) })
		})
	}
}

// trial is one test with its store.
type trial struct {
	*testing.T
	o       Options
	advance func(time.Duration)
	last    uint64
}

func (t *trial) store() replay.NonceStore { return t.o.New(t.T, 0) }

// ticks is n units of time.
func (t *trial) ticks(n int) time.Duration { return time.Duration(n) * t.o.Tick }

// id returns an ID as envelopes have: a key ID, then bytes of any value.
func (t *trial) id() replay.ID {
	t.last++
	id := append([]byte{2}, "k1"...)
	id = append(id, make([]byte, 32+12)...)
	id[3] = 0xff // not UTF-8
	binary.BigEndian.PutUint64(id[len(id)-8:], t.last)
	return replay.ID(id)
}

// request asks for a fresh envelope with a lease of four ticks.
func (t *trial) request(id replay.ID) replay.Request {
	now := time.Now()
	return replay.Request{
		Group:          "group",
		ID:             id,
		BrokerID:       "broker-1",
		Lease:          t.ticks(4),
		Now:            now,
		FreshUntil:     now.Add(t.ticks(20)),
		RetryWindow:    t.ticks(1000),
		RetainClaimed:  now.Add(t.ticks(1000)),
		RetainConsumed: now.Add(t.ticks(1000)),
	}
}

// claimed begins, and fails the test unless that gives a claim.
func (t *trial) claimed(s replay.NonceStore, r replay.Request) replay.Claim {
	t.Helper()
	c, err := s.Begin(t.Context(), r)
	if err != nil {
		t.Fatalf("Begin: %v, want a claim", err)
	}
	if c.Duplicate || c.Token == "" {
		t.Fatalf("Begin: %+v, want a token and no Duplicate", c)
	}
	return c
}

// refused begins, and fails the test unless that gives the error.
func (t *trial) refused(s replay.NonceStore, r replay.Request, want error) {
	t.Helper()
	c, err := s.Begin(t.Context(), r)
	is(t, "Begin", err, want)
	if c != (replay.Claim{}) {
		t.Errorf("Begin: %+v beside an error", c)
	}
}

func (t *trial) renew(s replay.NonceStore, id replay.ID, token string, want error) {
	t.Helper()
	is(t, "Renew", s.Renew(t.Context(), "group", id, token, t.ticks(4)), want)
}

func (t *trial) consume(s replay.NonceStore, id replay.ID, token string, want error) {
	t.Helper()
	is(t, "Consume", s.Consume(t.Context(), "group", id, token), want)
}

func (t *trial) release(s replay.NonceStore, id replay.ID, token string, want error) {
	t.Helper()
	is(t, "Release", s.Release(t.Context(), "group", id, token), want)
}

// firstSeen compares to the millisecond, which is as exact as stores keep it.
func (t *trial) firstSeen(c replay.Claim, want time.Time) {
	t.Helper()
	if d := c.FirstSeen.Sub(want); d <= -time.Millisecond || d >= time.Millisecond {
		t.Errorf("FirstSeen is %v off", d)
	}
}

func is(t *trial, op string, err, want error) {
	t.Helper()
	if want == nil && err != nil || !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", op, err, want)
	}
}

// sentinel reports whether the error is one that callers act on.
func sentinel(err error) bool {
	for _, s := range []error{
		replay.ErrReused, replay.ErrBusy, replay.ErrNotFresh, replay.ErrFull, replay.ErrClaimLost,
		context.Canceled, context.DeadlineExceeded,
	} {
		if errors.Is(err, s) {
			return true
		}
	}
	return false
}
