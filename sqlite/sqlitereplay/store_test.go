package sqlitereplay_test

import (
	"context"
	"database/sql"
	"path/filepath"
	"testing"
	"time"

	_ "modernc.org/sqlite"

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
		Backup: func() func() { return backup(t, path) },
	}
}

// backup copies a file that is in use, and returns what puts the copy back into it: both as
// SQLite does it, under handles that stay open.
func backup(t testing.TB, path string) (restore func()) {
	saved := filepath.Join(t.TempDir(), "saved.db")
	run := func(statements ...string) {
		db, err := sql.Open("sqlite", path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = db.Close() }()
		db.SetMaxOpenConns(1)
		for _, s := range statements {
			if _, err := db.Exec(s); err != nil {
				t.Fatal(err)
			}
		}
	}
	run("VACUUM INTO '" + saved + "'")
	return func() {
		all := []string{"ATTACH '" + saved + "' AS saved", "BEGIN IMMEDIATE"}
		for _, table := range []string{"store", "counters", "groups", "senders", "streams", "pages"} {
			all = append(all, "DELETE FROM main."+table, "INSERT INTO main."+table+" SELECT * FROM saved."+table)
		}
		run(append(all, "COMMIT")...)
	}
}

func TestStore(t *testing.T) { replaytest.Run(t, replaytest.Options{New: file, Schedules: 20}) }
