package cas

import (
	"errors"
	"reflect"
	"testing"

	"github.com/queue-runtime/queue/internal/replaystate"
)

// The item of a store knows what the last 64 Stores have raised the change number to; of an
// older one it does not say that this is gone.
func TestMetaKnowsItsHandles(t *testing.T) {
	e := &engine{o: Options{PageSpan: 64}}
	var m meta
	for id := range uint64(maxHandles) {
		m.Stamp.Change++
		m.note(id)
	}
	m.Stamp.Change++
	m.note(0) // once more: it is the newest now
	if len(m.handles) != maxHandles || m.handles[0].id != 1 {
		t.Fatalf("%d handles from %+v", len(m.handles), m.handles[0])
	}
	for _, c := range []struct {
		id, change uint64
		want       bool
	}{
		{0, maxHandles + 1, true},
		{0, maxHandles + 2, false},
		{1, 2, true},
		{1, 3, false},
		{1, 0, true},
		{99, 1, true}, // it may have been among those that went
	} {
		if got := m.has(c.id, c.change); got != c.want {
			t.Errorf("handle %d with %d: %v", c.id, c.change, got)
		}
	}
	b := e.encodeMeta(&m)
	if got, err := e.decodeMeta(b); err != nil || !reflect.DeepEqual(got, m) {
		t.Errorf("%+v, %v; want %+v", got, err, m)
	}
	for n := range b {
		if _, err := e.decodeMeta(b[:n]); n != len(b)-2 && !errors.Is(err, replaystate.ErrCorrupt) {
			t.Errorf("the first %d of %d bytes: %v", n, len(b), err)
		}
	}
	m.handles = m.handles[:3]
	for id, want := range map[uint64]bool{1: true, 99: false} {
		if got := m.has(id, 2); got != want {
			t.Errorf("of few handles, %d: %v", id, got)
		}
	}
}
