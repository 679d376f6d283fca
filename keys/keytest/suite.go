// Package keytest is the suite that every [keys.Provider] passes: what it
// answers, rotation while it is in use, one secret for an ID for ever, and which
// errors it gives when its store fails.
package keytest

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/keys"
)

// Material is one key as a store holds it.
type Material struct {
	ID               keys.ID
	Sender           string // of a sender key, whose Secret is then that of the sender; empty means a master key
	Secret           []byte
	Created, Expires time.Time
	Queues           []string
}

// Content is what a store holds.
type Content struct {
	Current keys.ID // empty means none
	Keys    []Material
}

// Backing is a provider with the store behind it.
type Backing struct {
	Provider keys.Provider
	// Replace makes the store hold other keys, and returns once the provider
	// has to answer from them. It returns the error of a provider that refuses
	// it. Nil means that the keys never change.
	Replace func(Content) error
	// Break makes the store fail, or work again, and returns once the provider
	// has to notice. Nil means that the store cannot fail.
	Break func(broken bool)
}

// Options says how to run the suite.
type Options struct {
	// Open returns a provider over a store that holds these keys, and has t
	// clean it up. Required.
	Open func(t *testing.T, c Content) Backing
	// Bubble runs each test in a bubble of testing/synctest, so that Replace
	// and Break can sleep past any time to live at no cost.
	Bubble bool
	// NoTimes says that the provider knows no creation and expiry.
	NoTimes bool
	// SenderKeys says that the store can hold sender keys.
	SenderKeys bool
	// Queues says that the store can hold the queues that a key is for.
	Queues bool
	// AlwaysCurrent says that the store cannot be without a current key.
	AlwaysCurrent bool
}

// Run runs the suite as subtests of t.
func Run(t *testing.T, o Options) {
	t.Helper()
	if o.Open == nil {
		t.Fatal("keytest: Options.Open is required")
	}
	for _, c := range []struct {
		name string
		run  func(*trial)
	}{
		{"keys", answers},
		{"same key", same},
		{"unknown ID", unknown},
		{"list", list},
		{"no current key", noCurrent},
		{"expired", expired},
		{"sender key", senderKey},
		{"queues", queues},
		{"cancelled", cancelled},
		{"unprintable", unprintable},
		{"rotation", rotation},
		{"corrected secret", correctedSecret},
		{"another secret", anotherSecret},
		{"another secret after removal", anotherSecretLater},
		{"rotation in use", inUse},
		{"broken store", broken},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !o.Bubble {
				c.run(&trial{T: t, o: o})
				return
			}
			synctest.Test(t, func(t *testing.T) { c.run(&trial{T: t, o: o}) })
		})
	}
}

// trial is one test with its provider.
type trial struct {
	*testing.T
	o Options
	Backing
}

func (t *trial) open(c Content) {
	t.Helper()
	t.Backing = t.o.Open(t.T, c)
}

func (t *trial) replace(c Content) {
	t.Helper()
	if err := t.Replace(c); err != nil {
		t.Fatalf("Replace: %v", err)
	}
}

// material returns the nth key; its secret begins with the version, so that one
// ID can have several.
func material(n, version byte) Material {
	m := Material{
		ID:      keys.ID([]byte{'k', 'e', 'y', '-', 'a' + n}),
		Secret:  make([]byte, keys.Size),
		Created: time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC),
	}
	for i := range m.Secret {
		m.Secret[i] = 151*n + 37*version + 89*byte(i) + 13
	}
	return m
}
