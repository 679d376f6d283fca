package sqlitereplay_test

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/replay/replaytest"
	"github.com/queue-runtime/queue/sqlite/sqlitereplay"
)

func open(t *testing.T, path string, o *sqlitereplay.Options) *sqlitereplay.Store {
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

func TestStore(t *testing.T) {
	replaytest.Run(t, replaytest.Options{
		New: func(t *testing.T, limit int) replay.NonceStore {
			return open(t, filepath.Join(t.TempDir(), "nonces.db"), &sqlitereplay.Options{MaxEntries: limit})
		},
		Bounded: true,
	})
}
