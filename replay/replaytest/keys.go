package replaytest

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/queue-runtime/queue/replay"
)

// known fails the test unless these keys are known to a group, in that order.
func (h handle) known(group string, want ...replay.KnownKey) {
	got, err := h.s.KnownKeys(h.t.ctx, group)
	if err != nil {
		h.t.fatalf("KnownKeys: %v", err)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		h.t.errorf("KnownKeys of %s: %v, want %v", group, got, want)
	}
}

// noteKey enters a key, and fails the test unless it is known as want then.
func (h handle) noteKey(group string, k, want replay.KnownKey) {
	if got, err := h.s.NoteKey(h.t.ctx, group, k); err != nil || got != want {
		h.t.fatalf("NoteKey: %v, %v, want %v", got, err, want)
	}
}

func (h handle) forgetKey(want bool, group string, k replay.KnownKey) {
	if got, err := h.s.ForgetKey(h.t.ctx, group, k); err != nil || got != want {
		h.t.errorf("ForgetKey: %v, %v, want %v", got, err, want)
	}
}

// knownKeys: the keys that opened messages are known to all handles, and an ID keeps its
// first value until it is forgotten.
func knownKeys(t *trial) {
	f := t.fixture(replay.Bounds{})
	a, b := handle{t, f.Open(0)}, handle{t, f.Open(0)}
	a.known(group)
	k1 := replay.KnownKey{Queue: "orders", ID: "k1", Value: [16]byte{1}}
	k2 := replay.KnownKey{Queue: "orders", ID: "k2", Value: [16]byte{2}}
	elsewhere := replay.KnownKey{Queue: "ledger", ID: "k1", Value: [16]byte{3}}
	a.noteKey(group, k1, k1)
	b.noteKey(group, k2, k2)
	b.noteKey(group, k1, k1)
	a.noteKey(group, elsewhere, elsewhere)
	other := k1
	other.Value = [16]byte{9}
	for _, h := range []handle{a, b, {t, f.Open(0)}} {
		h.noteKey(group, other, k1)
	}
	b.noteKey("another", other, other)
	a.handled(at(t.young("s"), 1)) // what changes the group otherwise leaves them
	for _, h := range []handle{a, b, {t, f.Open(0)}} {
		h.known(group, k1, k2, elsewhere)
		h.known("another", other)
	}
	b.forgetKey(true, group, other)
	b.forgetKey(false, group, other)
	a.known(group, k2, elsewhere)
	a.noteKey(group, other, other)
	b.noteKey(group, k1, other)
	b.known(group, k2, elsewhere, other)
	a.known("another", other)
	for _, bad := range []replay.KnownKey{{ID: "k1"}, {Queue: "q"}, {Queue: strings.Repeat("q", replay.MaxName+1), ID: "k1"}} {
		if _, err := a.s.NoteKey(t.ctx, group, bad); !errors.Is(err, replay.ErrInvalid) {
			t.errorf("NoteKey of %d and %d bytes: %v, want ErrInvalid", len(bad.Queue), len(bad.ID), err)
		}
	}
}

// racingKeys: of handles that enter different values of one key at the same time one wins,
// and all answers say which.
func racingKeys(t *trial) {
	f := t.fixture(replay.Bounds{})
	const handles, rounds = 4, 5
	var open [handles]replay.Store
	for i := range open {
		open[i] = f.Open(0)
	}
	for round := range rounds {
		var known [handles]replay.KnownKey
		var errs [handles]error
		var wg sync.WaitGroup
		for i, s := range open {
			wg.Go(func() {
				k := replay.KnownKey{Queue: "orders", ID: fmt.Sprint(round), Value: [16]byte{byte(i + 1)}} //nolint:gosec // G115: small
				known[i], errs[i] = s.NoteKey(t.ctx, group, k)
			})
		}
		wg.Wait()
		for i := range open {
			if errs[i] != nil || known[i] != known[0] || known[i].Value == [16]byte{} {
				t.fatalf("NoteKey answers %v, %v, want one key of all", known, errs)
			}
		}
		all, err := open[0].KnownKeys(t.ctx, group)
		if err != nil || len(all) != round+1 || all[round] != known[0] {
			t.fatalf("KnownKeys: %v, %v, want %v as the last", all, err, known[0])
		}
	}
}

// manyKnownKeys: of too many keys those go that were noted first.
func manyKnownKeys(t *trial) {
	h := t.handle()
	var want []replay.KnownKey
	for n := range replay.MaxKnownKeys + 3 {
		k := replay.KnownKey{Queue: strings.Repeat("q", replay.MaxName), ID: fmt.Sprint(n), Value: [16]byte{byte(n)}}
		h.noteKey(group, k, k)
		want = append(want, k)
	}
	h.known(group, want[3:]...)
}
