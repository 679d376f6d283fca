package sqlitereplay_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/replay/replaytest"
	"github.com/queue-runtime/queue/sqlite/sqlitereplay"
)

func open(t testing.TB, path string, o *sqlitereplay.Options) *sqlitereplay.Store {
	t.Helper()
	s, err := sqlitereplay.Open(context.Background(), path, o)
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

// file returns a fixture whose handles are connections of their own to one file.
func file(t testing.TB, b replay.Bounds) replaytest.Fixture {
	dir := t.TempDir()
	path := filepath.Join(dir, "replay.db")
	return replaytest.Fixture{
		Open: func(shift time.Duration) replay.Store {
			// Not synced: what a power cut does is not what the suite tests.
			s := open(t, path, &sqlitereplay.Options{Bounds: b, Normal: true})
			s.Shift(shift)
			return s
		},
	}
}

func TestStore(t *testing.T) { replaytest.Run(t, replaytest.Options{New: file, Schedules: 20}) }
