package replaystate

import (
	"reflect"
	"testing"
)

// TestAcceptOnce: an acceptance is entered once. Only then the store has to be written, and the
// memory has another ID.
func TestAcceptOnce(t *testing.T) {
	old, lost := Stamp{ID: [16]byte{1}, Birth: 50, Change: 7}, Stamp{ID: [16]byte{9}, Birth: 3, Change: 20}
	h := History{Stamp: old}
	want := Loss{At: 100, Lost: Stamp{ID: lost.ID, Change: 20}, From: old, To: [16]byte{2}}
	if l, changed := h.Accept(lost, [16]byte{2}, 100); l != want || !changed {
		t.Errorf("accepted %+v, changed %v; want %+v", l, changed, want)
	}
	if now := (Stamp{ID: [16]byte{2}, Birth: 100, Change: 8}); h.Stamp != now || !reflect.DeepEqual(h.Losses, []Loss{want}) {
		t.Errorf("the memory is %+v with %+v, want %+v", h.Stamp, h.Losses, now)
	}
	before := h
	for name, s := range map[string]Stamp{
		"the same":                 lost,
		"an older state of it":     {ID: lost.ID, Change: 1},
		"the same, change unknown": {ID: lost.ID},
		"what the store had":       old,
	} {
		if l, changed := h.Accept(s, [16]byte{3}, 200); l != want || changed || !reflect.DeepEqual(h, before) {
			t.Errorf("%s: %+v, changed %v, and the memory %+v; want the loss from before", name, l, changed, h.Stamp)
		}
	}
	// The operator did not know of these when it accepted the first.
	for name, s := range map[string]Stamp{
		"a later state of what the store had": {ID: old.ID, Change: 8},
		"another memory":                      {ID: [16]byte{8}, Change: 1},
		"the store's, change unknown":         {ID: old.ID},
	} {
		h := before
		if l, changed := h.Accept(s, [16]byte{3}, 200); !changed || l.At != 200 || l.From != before.Stamp || len(h.Losses) != 2 || h.Stamp.ID != [16]byte{3} {
			t.Errorf("%s: %+v, changed %v, and the memory %+v; want another loss", name, l, changed, h.Stamp)
		}
	}
	// A clock that was set back makes no memory older.
	if h.Accept(Stamp{ID: [16]byte{8}}, [16]byte{4}, 60); h.Stamp.Birth != 100 {
		t.Errorf("born at %d, want 100", h.Stamp.Birth)
	}
	for i := range byte(2 * MaxLosses) {
		h.Accept(Stamp{ID: [16]byte{100 + i}}, [16]byte{200 + i}, 300)
	}
	if n := len(h.Losses); n != MaxLosses || h.Losses[n-1].To != h.Stamp.ID {
		t.Errorf("%d losses, the last led to %v; want the newest %d", n, h.Losses[n-1].To, MaxLosses)
	}
}
