package cas_test

import (
	"context"
	"testing"
	"time"

	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/replay/cas"
	"github.com/queue-runtime/queue/replay/replaytest"
)

func open(t testing.TB, b cas.Backend, o *cas.Options) *cas.Store {
	t.Helper()
	s, err := cas.Open(context.Background(), b, o)
	for range 50 { // a backend may be unreliable
		if err == nil {
			break
		}
		s, err = cas.Open(context.Background(), b, o)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

// fixture returns handles on one backend, which plant may give faults.
func fixture(plant func(*memory)) func(t testing.TB, b replay.Bounds) replaytest.Fixture {
	return func(t testing.TB, b replay.Bounds) replaytest.Fixture {
		m := newMemory()
		plant(m)
		return replaytest.Fixture{
			Open: func(shift time.Duration) replay.Store {
				s := open(t, m, &cas.Options{Bounds: b})
				s.Shift(shift)
				return s
			},
			Lose:   m.clear,
			Backup: m.backup,
		}
	}
}

func TestStore(t *testing.T) {
	replaytest.Run(t, replaytest.Options{
		New: fixture(func(*memory) {}), Observes: true, ChangesLate: cas.DefaultChangeInterval, Approximate: true, Schedules: 500,
	})
}

// TestUnreliable: a backend that is slow, loses answers and has other writers.
func TestUnreliable(t *testing.T) {
	replaytest.Run(t, replaytest.Options{
		New: fixture(func(m *memory) { m.lost, m.conflicts, m.delay = 20, 50, 2*time.Millisecond }), Observes: true,
		ChangesLate: cas.DefaultChangeInterval, Approximate: true, Unreliable: true, Schedules: 100,
	})
}
