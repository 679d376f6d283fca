package replay_test

import (
	"testing"
	"time"

	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/replay/replaytest"
)

func newMemory(t testing.TB, b replay.Bounds) replaytest.Fixture {
	m, err := replay.NewMemory(&replay.MemoryOptions{Bounds: b})
	if err != nil {
		t.Fatal(err)
	}
	// One process, one clock: every handle is the store itself.
	return replaytest.Fixture{Open: func(time.Duration) replay.Store { return m }}
}

func TestMemory(t *testing.T) {
	replaytest.Run(t, replaytest.Options{New: newMemory, Schedules: 3000 / slowdown})
}
