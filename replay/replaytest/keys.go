package replaytest

import (
	"errors"
	"fmt"
	"strings"

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

func (h handle) noteKey(group string, k replay.KnownKey) {
	if err := h.s.NoteKey(h.t.ctx, group, k); err != nil {
		h.t.fatalf("NoteKey: %v", err)
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
	a.noteKey(group, k1)
	b.noteKey(group, k2)
	b.noteKey(group, k1)
	a.noteKey(group, elsewhere)
	other := k1
	other.Value = [16]byte{9}
	b.noteKey(group, other)
	b.noteKey("another", other)
	a.handled(at(t.young("s"), 1)) // what changes the group otherwise leaves them
	for _, h := range []handle{a, b, {t, f.Open(0)}} {
		h.known(group, k1, k2, elsewhere)
		h.known("another", other)
	}
	b.forgetKey(true, group, other)
	b.forgetKey(false, group, other)
	a.known(group, k2, elsewhere)
	a.noteKey(group, other)
	b.known(group, k2, elsewhere, other)
	a.known("another", other)
	for _, bad := range []replay.KnownKey{{ID: "k1"}, {Queue: "q"}, {Queue: strings.Repeat("q", replay.MaxName+1), ID: "k1"}} {
		if err := a.s.NoteKey(t.ctx, group, bad); !errors.Is(err, replay.ErrInvalid) {
			t.errorf("NoteKey of %d and %d bytes: %v, want ErrInvalid", len(bad.Queue), len(bad.ID), err)
		}
	}
}

// manyKnownKeys: of too many keys those go that were noted first.
func manyKnownKeys(t *trial) {
	h := t.handle()
	var want []replay.KnownKey
	for n := range replay.MaxKnownKeys + 3 {
		k := replay.KnownKey{Queue: strings.Repeat("q", replay.MaxName), ID: fmt.Sprint(n), Value: [16]byte{byte(n)}}
		h.noteKey(group, k)
		want = append(want, k)
	}
	h.known(group, want[3:]...)
}
