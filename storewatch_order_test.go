package queue

import (
	"errors"
	"testing"

	"github.com/queue-runtime/queue/replay"
)

// An answer is compared with what was seen before its call: one that another overtook is
// no loss, any lower number after that is one, and each loss is reported once.
func TestStoreWatchOrder(t *testing.T) {
	warned := 0
	w := &storeWatch{policy: WarnOnLoss, warn: func(err error) {
		if !errors.Is(err, ErrReplayStoreLost) {
			t.Error(err)
		}
		warned++
	}}
	at := func(id byte, change uint64) replay.Stamp { return replay.Stamp{ID: [16]byte{id}, Change: change} }
	expect := func(what string, want int) {
		t.Helper()
		if warned != want {
			t.Errorf("%s: %d losses reported, want %d", what, warned, want)
		}
	}
	see := func(before, s replay.Stamp) {
		t.Helper()
		if err := w.see(before, s); err != nil {
			t.Error(err)
		}
	}
	slow := w.seen()
	see(w.seen(), at(1, 10))
	see(slow, at(1, 3))
	expect("an overtaken first answer", 0)
	slow = w.seen()
	see(w.seen(), at(1, 100_000))
	see(slow, at(1, 11))
	expect("an overtaken answer", 0)
	slow = w.seen()
	see(w.seen(), at(1, 99_999))
	expect("a number that fell by 1", 1)
	see(slow, at(1, 99_998))
	see(slow, at(1, 100_005))
	expect("the same loss, in calls that were under way", 1)
	slow = w.seen()
	see(w.seen(), at(2, 1_000_000))
	expect("another store", 2)
	see(slow, at(2, 999_999))
	see(slow, at(1, 5_000_000))
	see(w.seen(), at(2, 1_000_001))
	expect("the same other store, and an answer of the first one that it overtook", 2)
	see(w.seen(), at(1, 2_000_000))
	expect("the first store again", 3)
	see(replay.Stamp{}, at(2, 2_000_000))
	expect("two stores in one answer", 4)
}
