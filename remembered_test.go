package queue

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/replay"
)

// This file tests what a Client and its receivers keep in memory of what they saw.

// TestKnownKeysThatWereGivenOut do not change when the store corrects one of them: another
// receiver may be reading them.
func TestKnownKeysThatWereGivenOut(t *testing.T) {
	k := &knownKeys{}
	k.note("q", "k1", checkValue{1})
	k.note("q", "k2", checkValue{2})
	before := k.named("q")
	was := slices.Clone(before)
	k.correct("q", "k1", checkValue{9})
	if !slices.Equal(before, was) {
		t.Errorf("a list that was given out became %v, was %v", before, was)
	}
	if now := k.named("q"); len(now) != 2 || now[0].value != (checkValue{9}) || now[1].value != (checkValue{2}) {
		t.Errorf("corrected: %v", now)
	}
}

// TestCheckValuesAreKept: while messages come under several keys, none is derived again.
func TestCheckValuesAreKept(t *testing.T) {
	var all []*keys.Key
	for i := range byte(3) {
		k, err := keys.New(keys.ID(fmt.Sprint("k", i)), bytes.Repeat([]byte{i + 1}, keys.Size), nil)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, k)
	}
	c := &checkedKeys{}
	seen := make(map[checkValue]bool)
	ask := func() {
		for _, k := range all {
			seen[c.valueOf(k)] = true
		}
	}
	ask()
	if n := testing.AllocsPerRun(100, ask); n > 0 || len(seen) != len(all) {
		t.Errorf("%v allocations and %d values for %d keys in turn", n, len(seen), len(all))
	}
}

// TestReleasesWithinTheirBound: releases are remembered up to the bound, and beyond it no more
// than an eighth of them is forgotten.
func TestReleasesWithinTheirBound(t *testing.T) {
	r := &releases{of: make(map[string]int)}
	kept := func(n int) (kept int) {
		for i := range n {
			if r.spent(fmt.Sprint(i), 2) == 1 {
				kept++
			}
		}
		return kept
	}
	for i := range maxReleases {
		r.note(fmt.Sprint(i))
	}
	if n := kept(maxReleases); n != maxReleases {
		t.Errorf("%d of %d releases are remembered", n, maxReleases)
	}
	r.note(fmt.Sprint(maxReleases))
	if n := kept(maxReleases + 1); n != maxReleases-releasesPerPurge+1 {
		t.Errorf("%d releases are remembered beyond the bound, want all but %d", n, releasesPerPurge)
	}
}

// TestGroupsAreForgotten: a Client that opens and closes receivers of ever other groups keeps
// nothing of them.
func TestGroupsAreForgotten(t *testing.T) {
	store, err := replay.NewMemory(nil)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := keys.NewRing()
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(memqueue.New(nil), Strict(ring, store))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(t.Context()) }()
	config := c.Options().Crypto
	config.MaxMessageAge = time.Hour
	for i := range 3 {
		var open []*Receiver
		for range 2 {
			r, err := c.Receiver(t.Context(), "q", &ReceiverOptions{Group: fmt.Sprint(i), Crypto: &config})
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, r)
		}
		for left := range open {
			if n := len(c.accountants); n != 1 {
				t.Errorf("%d accountants with %d receivers, want 1", n, len(open)-left)
			}
			if err := open[left].Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := len(c.accountants); n > 0 {
		t.Errorf("%d accountants without a receiver", n)
	}
}
