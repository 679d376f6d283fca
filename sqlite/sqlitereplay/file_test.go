package sqlitereplay_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/sqlite/sqlitequeue"
	"github.com/queue-runtime/queue/sqlite/sqlitereplay"
	"github.com/queue-runtime/queue/testbed/sqliteattack"
)

// request asks for message n of a stream that was opened in 2027.
func request(n int) replay.Request {
	now := time.Now()
	id := replay.Identity{Sender: "sender", Sequence: uint64(n) + 1} //nolint:gosec // G115: small
	binary.BigEndian.PutUint64(id.Stream[:], 1_800_000_000_000<<16)
	r := replay.Request{
		ID: id, Token: replay.NewToken(), Lease: time.Minute, SealedAt: now, Now: now, FreshUntil: now.Add(time.Minute),
		RetryWindow: time.Hour, MaxMessageAge: time.Minute, MaxClockSkew: time.Second,
	}
	binary.BigEndian.PutUint64(r.Tag[:], id.Sequence)
	return r
}

// claim begins one message and returns the answer.
func claim(s replay.Store, r replay.Request) (replay.Claim, error) {
	c, err := s.Begin(context.Background(), "group", []replay.Request{r})
	if err != nil {
		return replay.Claim{}, err
	}
	return c[0], c[0].Err
}

// end finishes one message.
func end(s replay.Store, r replay.Request, kind replay.FinishKind) error {
	f, err := s.Finish(context.Background(), "group", []replay.Finish{{ID: r.ID, Token: r.Token, Kind: kind}})
	if err != nil {
		return err
	}
	return f[0].Err
}

// TestQueueRefused names a queue's file by every way there is.
func TestQueueRefused(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "queue.db")
	b, err := sqlitequeue.Open(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := b.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	if err := errors.Join(os.Symlink(path, filepath.Join(dir, "soft")), os.Mkdir(filepath.Join(dir, "sub"), 0o700)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"queue.db", "soft", "sub/../queue.db"} {
		if _, err := sqlitereplay.Open(t.Context(), filepath.Join(dir, name), nil); !errors.Is(err, sqlitereplay.ErrQueue) {
			t.Errorf("Open(%q): %v, want ErrQueue", name, err)
		} else if name == "soft" {
			t.Log(err)
		}
	}
	if err := os.Link(path, filepath.Join(dir, "hard")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"hard": "hard links", "queue.db-wal": "belongs to a database", "queue.db-shm": "belongs to a database"} {
		if _, err := sqlitereplay.Open(t.Context(), filepath.Join(dir, name), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open(%q): %v, want one that says %q", name, err, want)
		}
	}
	if err := b.Check(t.Context()); err != nil {
		t.Errorf("the queue's file was damaged: %v", err)
	}

	// Nor is a store taken for a queue.
	open(t, filepath.Join(dir, "replay.db"), nil)
	if _, err := sqlitequeue.Open(t.Context(), filepath.Join(dir, "replay.db"), nil); !errors.Is(err, sqlitequeue.ErrForeign) {
		t.Errorf("a store opened as a queue: %v, want ErrForeign", err)
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "text"), make([]byte, 5000), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlitereplay.Open(t.Context(), filepath.Join(dir, "text"), nil); driver.KindOf(err) != driver.Corrupt {
		t.Errorf("a file that is no database: %v, want driver.Corrupt", err)
	}
	if _, err := sqlitereplay.Open(t.Context(), filepath.Join(dir, "none"), &sqlitereplay.Options{MustExist: true}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("MustExist: %v, want fs.ErrNotExist", err)
	}
	for _, o := range []sqlitereplay.Options{{Bounds: replay.Bounds{Recent: -1}}, {LockTimeout: -1}} {
		if _, err := sqlitereplay.Open(t.Context(), filepath.Join(dir, "new"), &o); err == nil {
			t.Errorf("%+v: no error", o)
		}
	}
	path := filepath.Join(dir, "replay.db")
	s := open(t, path, nil)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v; want mode 0600", info, err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := claim(s, request(0)); !errors.Is(err, driver.ErrClosed) {
		t.Errorf("Begin after Close: %v", err)
	}
	a, err := sqliteattack.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = a.Exec(t.Context(), "PRAGMA user_version = 9"); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlitereplay.Open(t.Context(), path, nil); !errors.Is(err, sqlitereplay.ErrNewer) {
		t.Errorf("a newer schema: %v, want ErrNewer", err)
	}
}

// TestPlanted: a file whose schema was changed is refused, also while it is open.
func TestPlanted(t *testing.T) {
	for name, statement := range map[string]string{
		"trigger": "CREATE TRIGGER planted AFTER UPDATE ON store BEGIN DELETE FROM pages; END",
		"view":    "CREATE VIEW planted AS SELECT 1",
		"table":   "CREATE TABLE planted (x)",
		"index":   "CREATE INDEX planted ON pages (body)",
		"missing": "DROP INDEX pages_due",
		"column":  "ALTER TABLE pages ADD COLUMN planted INTEGER",
	} {
		path := filepath.Join(t.TempDir(), "replay.db")
		s := open(t, path, nil)
		r := request(1)
		if _, err := claim(s, r); err != nil {
			t.Fatal(err)
		}
		a, err := sqliteattack.Open(path)
		if err == nil {
			_, err = a.Exec(t.Context(), statement)
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := end(s, r, replay.Consumed); driver.KindOf(err) != driver.Corrupt {
			t.Errorf("%s, while the file is open: %v, want driver.Corrupt", name, err)
		}
		if _, err := s.Look(t.Context(), "group", []replay.Query{{ID: r.ID}}); driver.KindOf(err) != driver.Corrupt {
			t.Errorf("%s, look: %v, want driver.Corrupt", name, err)
		}
		if _, err := sqlitereplay.Open(t.Context(), path, nil); !errors.Is(err, sqlitereplay.ErrForeign) {
			t.Errorf("%s, when it is opened: %v, want ErrForeign", name, err)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestDamagedRow: a row that was altered fails the call and changes nothing.
func TestDamagedRow(t *testing.T) {
	for _, statement := range []string{
		"UPDATE pages SET body = x'0102'", "UPDATE pages SET body = x'00'", "DELETE FROM store",
		"UPDATE groups SET state = x'09'",
	} {
		path := filepath.Join(t.TempDir(), "replay.db")
		s := open(t, path, nil)
		r := request(1)
		if _, err := claim(s, r); err != nil {
			t.Fatal(err)
		}
		a, err := sqliteattack.Open(path)
		if err == nil {
			_, err = a.Exec(t.Context(), statement)
		}
		if err == nil {
			err = a.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := end(s, r, replay.Consumed); driver.KindOf(err) != driver.Corrupt {
			t.Errorf("%s: %v, want driver.Corrupt", statement, err)
		}
		if _, err := claim(s, request(2)); driver.KindOf(err) != driver.Corrupt {
			t.Errorf("%s: %v, want driver.Corrupt", statement, err)
		}
	}
}

// TestRestart: what was consumed, when a message was first seen, the ID and the
// change number outlive the store.
func TestRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "replay.db")
	s := open(t, path, nil)
	consumed, released := request(1), request(2)
	first, err := claim(s, released)
	if err == nil {
		_, err = claim(s, consumed)
	}
	if err == nil {
		err = errors.Join(end(s, consumed, replay.Consumed), end(s, released, replay.Released), s.Close(t.Context()))
	}
	if err != nil {
		t.Fatal(err)
	}
	s = open(t, path, nil)
	if err := end(s, consumed, replay.Consumed); err != nil {
		t.Errorf("the same Finish again: %v", err)
	}
	consumed.Token = replay.NewToken()
	if _, err := claim(s, consumed); !errors.Is(err, replay.ErrDuplicate) {
		t.Errorf("a copy: %v, want ErrDuplicate", err)
	}
	again := released
	again.Token, again.Now = replay.NewToken(), released.Now.Add(2*time.Minute) // stale, but seen fresh
	c, err := claim(s, again)
	if err != nil || !c.FirstSeen.Equal(first.FirstSeen) || c.Stamp.ID != first.Stamp.ID || c.Stamp.Change <= first.Stamp.Change {
		t.Errorf("a retry: %+v, %v, want what follows from %+v", c, err, first)
	}
}

// TestSynced: a Finish that consumes or parks waits for the disk, once for a whole
// batch, unless Normal was chosen. What a power cut may forget does not wait.
func TestSynced(t *testing.T) {
	for _, normal := range []bool{false, true} {
		s := open(t, filepath.Join(t.TempDir(), "replay.db"), &sqlitereplay.Options{Normal: normal})
		var batch []replay.Request
		for n := range 32 {
			batch = append(batch, request(300*n))
		}
		finish := func(kind replay.FinishKind) func() error {
			return func() error {
				var f []replay.Finish
				for _, r := range batch {
					f = append(f, replay.Finish{ID: r.ID, Token: r.Token, Kind: kind})
				}
				got, err := s.Finish(t.Context(), "group", f)
				for _, g := range got {
					err = errors.Join(err, g.Err)
				}
				return err
			}
		}
		begin := func() error {
			got, err := s.Begin(t.Context(), "group", batch)
			for _, g := range got {
				err = errors.Join(err, g.Err)
			}
			return err
		}
		for i, step := range []struct {
			do     func() error
			synced int64
		}{{begin, 0}, {finish(replay.Released), 0}, {begin, 0}, {finish(replay.Parked), 1}, {begin, 0}, {finish(replay.Consumed), 1}} {
			if normal {
				step.synced = 0
			}
			all, synced := s.Commits()
			if err := step.do(); err != nil {
				t.Fatal(err)
			}
			allAfter, syncedAfter := s.Commits()
			if allAfter != all+1 || syncedAfter != synced+step.synced {
				t.Errorf("normal %v, step %d: %d commits, %d of them synced", normal, i, allAfter-all, syncedAfter-synced)
			}
		}
	}
}

// TestUndone: a call that fails in its second item leaves nothing of its first, also in
// what the store remembers of the file.
func TestUndone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "replay.db")
	s := open(t, path, nil)
	if _, err := claim(s, request(1)); err != nil {
		t.Fatal(err)
	}
	a, err := sqliteattack.Open(path)
	if err == nil {
		_, err = a.Exec(t.Context(), "UPDATE pages SET body = x'00'")
	}
	if err == nil {
		err = a.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	fine, damaged := request(2), request(1)
	fine.ID.Stream[15]++
	for range 2 { // were the first claim remembered, the second would find it busy
		fine.Token = replay.NewToken()
		if _, err := s.Begin(t.Context(), "group", []replay.Request{fine, damaged}); driver.KindOf(err) != driver.Corrupt {
			t.Errorf("a call with a damaged stream: %v, want driver.Corrupt", err)
		}
	}
	fine.Token = replay.NewToken()
	if _, err := claim(s, fine); err != nil {
		t.Errorf("the message of the other stream: %v", err)
	}
}

// TestAccepted: the store that accepts a loss answers from the new memory at once.
func TestAccepted(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "replay.db"), nil)
	first, err := claim(s, request(1))
	if err != nil {
		t.Fatal(err)
	}
	l, err := s.AcceptLoss(t.Context(), replay.Stamp{ID: [16]byte{1}, Change: 9})
	if err != nil {
		t.Fatal(err)
	}
	next, err := claim(s, request(2))
	if err != nil {
		t.Fatal(err)
	}
	if next.Stamp.ID == first.Stamp.ID || next.Stamp.ID != l.To || next.Stamp.Change <= first.Stamp.Change+1 {
		t.Errorf("after the loss was accepted a claim has the stamp %+v, before %+v; the loss is %+v", next.Stamp, first.Stamp, l)
	}
}
