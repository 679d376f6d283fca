package replaytest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/queue-runtime/queue/replay"
)

func (h handle) history() replay.History {
	out, err := h.s.History(h.t.ctx)
	if err != nil {
		h.t.fatalf("History: %v", err)
	}
	if out.Stamp.ID == [16]byte{} {
		h.t.fatalf("History: %+v, want the ID of the memory", out)
	}
	return out
}

func (h handle) acceptLoss(lost replay.Stamp) replay.Loss {
	l, err := h.s.AcceptLoss(h.t.ctx, lost)
	if err != nil {
		h.t.fatalf("AcceptLoss: %v", err)
	}
	return l
}

// accepts fails the test unless the loss of that memory is accepted, or is not.
func (h handle) accepts(want bool, lost replay.Stamp) {
	history := h.history()
	if l, ok := history.Accepts(lost); ok != want || ok && l.Lost.ID != lost.ID && l.From.ID != lost.ID {
		h.t.errorf("the loss of %v is accepted: %v (%+v), want %v, after %+v", lost, ok, l, want, history.Losses)
	}
}

// acceptedLoss: an operator accepts that the change number has fallen. All handles see
// another ID, and the memory is kept, but proves nothing of the time before.
func acceptedLoss(t *trial) {
	f := t.fixture(replay.Bounds{})
	a, b := handle{t, f.Open(0)}, handle{t, f.Open(0)}
	id := t.young("s")
	consumed, claimed, unused := at(id, 1), at(id, 2), at(id, 3)
	a.handled(consumed)
	a.begin(nil, claimed)
	a.look(replay.StateUnused, unused)
	before := a.history()
	if len(before.Losses) != 0 {
		t.errorf("History of a new store: %+v", before.Losses)
	}
	t.advance(2 * skew)
	l := a.acceptLoss(replay.Stamp{ID: before.Stamp.ID, Change: 77})
	after := b.history()
	switch s := after.Stamp; {
	case s.ID == before.Stamp.ID || s.ID != l.To:
		t.errorf("ID %x after %x, want %x", s.ID, before.Stamp.ID, l.To)
	case !s.Birth.After(before.Stamp.Birth) || s.Change < before.Stamp.Change:
		t.errorf("stamp %v of %v after %v of %v", s, s.Birth, before.Stamp, before.Stamp.Birth)
	case len(after.Losses) != 1 || after.Losses[0] != l:
		t.errorf("History: %+v, want %+v", after.Losses, l)
	}
	if l.Lost != (replay.Stamp{ID: before.Stamp.ID, Change: 77}) || l.From.ID != before.Stamp.ID || !l.From.Birth.Equal(before.Stamp.Birth) || !l.At.After(before.Stamp.Birth) {
		t.errorf("AcceptLoss: %+v", l)
	}
	b.accepts(true, before.Stamp)
	b.accepts(false, after.Stamp)
	b.accepts(false, replay.Stamp{ID: [16]byte{1}})

	for _, h := range [...]handle{a, b} { // also the one that was called
		for _, c := range h.begin(replay.ErrDuplicate, again(consumed)) {
			if c.Stamp.ID != l.To || !c.Stamp.Birth.Equal(after.Stamp.Birth) || c.Stamp.Change < after.Stamp.Change {
				t.errorf("Begin answers as %v of %v, want %v of %v", c.Stamp, c.Stamp.Birth, after.Stamp, after.Stamp.Birth)
			}
		}
	}
	b.look(replay.StateUnknown, unused)
	a.finish(nil, replay.Consumed, claimed)
	b.begin(replay.ErrDuplicate, again(claimed))

	if twice := b.acceptLoss(before.Stamp); twice != l || b.history().Stamp.ID != l.To {
		t.errorf("the same loss again: %+v, want %+v", twice, l)
	}
	if _, err := a.s.AcceptLoss(t.ctx, replay.Stamp{Change: 5}); !errors.Is(err, replay.ErrInvalid) {
		t.errorf("AcceptLoss of no memory: %v, want ErrInvalid", err)
	}
}

// acceptedLosses: receivers that have not asked for long remember memories from before
// several losses.
func acceptedLosses(t *trial) {
	h := t.handle()
	var all []replay.Stamp
	for range replay.MaxLosses + 2 {
		s := h.history().Stamp
		all = append(all, s)
		t.advance(skew)
		h.acceptLoss(s)
	}
	if n := len(h.history().Losses); n != replay.MaxLosses {
		t.errorf("%d losses are remembered, want %d", n, replay.MaxLosses)
	}
	for i, s := range all {
		h.accepts(i >= 2, s)
	}
}

// acceptedAfterLoss: what an operator accepts is that one memory is gone, and holds for the
// memory that took its place and for no other.
func acceptedAfterLoss(t *trial) {
	f := t.fixture(replay.Bounds{})
	if f.Lose == nil {
		return
	}
	h := handle{t, f.Open(0)}
	h.handled(at(t.young("s"), 1))
	first := h.history().Stamp
	f.Lose()
	second := h.history().Stamp
	h.accepts(false, first)
	t.advance(skew)
	l := h.acceptLoss(first)
	if l.Lost.ID != first.ID || l.From.ID != second.ID {
		t.errorf("AcceptLoss: %+v, want from %x to %x", l, first.ID, second.ID)
	}
	h.accepts(true, first)
	h.accepts(true, second)
	f.Lose()
	for _, s := range [...]replay.Stamp{first, second, {ID: l.To}} {
		h.accepts(false, s)
	}
}

// acceptedOther: an operator accepts the loss of one memory, as when a command is repeated
// after the store forgot it, while the present memory has lost something, too, that no
// receiver has reported yet. That is accepted by its name alone.
func acceptedOther(t *trial) {
	h := t.handle()
	h.handled(at(t.young("s"), 1))
	present := h.history().Stamp
	more := replay.Stamp{ID: present.ID, Change: present.Change + 1000} // as a receiver saw it
	t.advance(skew)
	h.acceptLoss(replay.Stamp{ID: [16]byte{1}, Change: 5})
	h.accepts(true, present)
	h.accepts(false, more)
	t.advance(skew)
	l := h.acceptLoss(more)
	if l.Lost.ID != more.ID || l.Lost.Change != more.Change {
		t.errorf("AcceptLoss of %v: %+v", more, l)
	}
	h.accepts(true, more)
	if twice := h.acceptLoss(replay.Stamp{ID: more.ID}); twice != l {
		t.errorf("the same loss by its ID: %+v, want %+v", twice, l)
	}
}

// acceptedBesideCalls: an accepted loss names the newest change number that its memory
// ever answered with. With an older one, receivers would take the rest for a further loss.
func acceptedBesideCalls(t *trial) {
	f := t.fixture(replay.Bounds{})
	a, b := f.Open(0), handle{t, f.Open(0)}
	r := at(t.young("s"), 1)
	b.handled(r)
	present := b.history().Stamp
	var wg sync.WaitGroup
	var newest [4]uint64
	stop := make(chan struct{})
	for i := range newest {
		name := fmt.Sprint("group ", i) // calls of a group follow each other
		wg.Go(func() {
			for calls := 1; ; calls++ {
				select {
				case <-stop:
					return
				default:
				}
				if calls%100 == 0 {
					time.Sleep(time.Millisecond) // otherwise a store that waits in a bubble does so for ever
				}
				c, err := a.Begin(t.ctx, name, []replay.Request{again(r)})
				if err == nil && c[0].Stamp.ID == present.ID {
					newest[i] = max(newest[i], c[0].Stamp.Change)
				}
			}
		})
	}
	l := b.acceptLoss(replay.Stamp{ID: [16]byte{1}, Change: 5})
	close(stop)
	wg.Wait()
	if n := slices.Max(newest[:]); n > l.From.Change {
		t.errorf("AcceptLoss: from change number %d, and %d was answered", l.From.Change, n)
	}
}

// acceptedBeforeRestore: a backup from before an acceptance knows nothing of it.
func acceptedBeforeRestore(t *trial) {
	f := t.fixture(replay.Bounds{})
	if f.Backup == nil {
		return
	}
	h := handle{t, f.Open(0)}
	h.handled(at(t.young("s"), 1))
	old := h.history().Stamp
	restore := f.Backup()
	t.advance(t.o.ChangesLate)
	l := h.acceptLoss(old)
	h.accepts(true, old)
	restore()
	t.advance(t.o.ChangesLate)
	h = handle{t, f.Open(0)}
	if id := h.history().Stamp.ID; id != old.ID {
		t.errorf("ID %x after a restore, want %x", id, old.ID)
	}
	h.accepts(false, replay.Stamp{ID: l.To})
}
