package sqlitereplay_test

import (
	"database/sql"
	"path/filepath"
	"testing"
	"time"

	"github.com/queue-runtime/queue/internal/replaystate"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/sqlite/sqlitereplay"
)

// TestParkedIsNotApart: a message is given back, tried again after its page was folded, and
// dead-lettered. Soon nothing of the page is apart from the account, and it waits for the end of its record.
func TestParkedIsNotApart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "replay.db")
	s := open(t, path, &sqlitereplay.Options{Normal: true})
	shift := time.Duration(0)
	sweep := func() {
		t.Helper()
		shift += 10 * time.Minute
		s.Shift(shift)
		if err := s.Probe(t.Context(), "group"); err != nil {
			t.Fatal(err)
		}
	}
	stored := func() (apart replaystate.Ranges, due time.Time) {
		t.Helper()
		db, err := sql.Open("sqlite", path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = db.Close() }()
		var head []byte
		var at int64
		if err := db.QueryRow("SELECT head, due FROM streams JOIN pages ON pages.stream = streams.id").Scan(&head, &at); err != nil {
			t.Fatal(err)
		}
		h, err := replaystate.DecodeHead(head)
		if err != nil {
			t.Fatal(err)
		}
		return h.Apart, time.UnixMilli(at)
	}
	end := func(n int, kind replay.FinishKind) {
		t.Helper()
		r := request(n)
		if c, err := claim(s, r); err != nil || c.Err != nil {
			t.Fatal(n, c, err)
		}
		if err := end(s, r, kind); err != nil {
			t.Fatal(n, err)
		}
	}
	end(1, replay.Consumed)
	end(2, replay.Released)
	sweep()
	if apart, _ := stored(); len(apart) != 1 {
		t.Fatalf("before: %v are apart", apart)
	}
	end(2, replay.Parked)
	sweep()
	if apart, due := stored(); len(apart) > 0 || time.Until(due) < 10*24*time.Hour {
		t.Errorf("%v are apart, due in %v", apart, time.Until(due))
	}
}
