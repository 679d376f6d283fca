package replay_test

import (
	"testing"
	"time"

	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/replay/replaytest"
)

func newMemory(t *testing.T, max int) replay.NonceStore {
	t.Helper()
	m, err := replay.NewMemory(&replay.MemoryOptions{MaxEntries: max})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMemory(t *testing.T) {
	replaytest.Run(t, replaytest.Options{New: newMemory, Bounded: true, Slack: time.Second})
}

func TestMemoryOptions(t *testing.T) {
	for _, bad := range []int{-1, 1 << 31} {
		if _, err := replay.NewMemory(&replay.MemoryOptions{MaxEntries: bad}); err == nil {
			t.Errorf("%d entries were accepted", bad)
		}
	}
	m, err := replay.NewMemory(nil)
	if err != nil || m.Len() != 0 || m.Retention() != 0 {
		t.Errorf("%v, %v", m, err)
	}
}
