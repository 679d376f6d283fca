package sqlitequeue_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/sqlite/sqlitequeue"
	"github.com/queue-runtime/queue/testbed/sqliteattack"
)

// fixture is a file with an open queue.
type fixture struct {
	testing.TB
	broker *sqlitequeue.Broker
	queue  driver.Queue
}

func open(tb testing.TB, path string, o *sqlitequeue.Options) *fixture {
	tb.Helper()
	b, err := sqlitequeue.Open(context.Background(), path, o)
	if err != nil {
		tb.Fatal(err)
	}
	f := &fixture{TB: tb, broker: b}
	tb.Cleanup(func() {
		if err := b.Close(context.Background()); err != nil {
			tb.Errorf("Close: %v", err)
		}
	})
	if f.queue, err = b.Open(context.Background(), "q", nil); err != nil {
		tb.Fatal(err)
	}
	return f
}

func attack(tb testing.TB, path string) *sqliteattack.Attacker {
	tb.Helper()
	a, err := sqliteattack.Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := a.Close(); err != nil {
			tb.Errorf("Close: %v", err)
		}
	})
	return a
}

func execute(tb testing.TB, a *sqliteattack.Attacker, statement string) {
	tb.Helper()
	if _, err := a.Exec(context.Background(), statement); err != nil {
		tb.Fatalf("%s: %v", statement, err)
	}
}

func message(n int) *driver.Message {
	return &driver.Message{ID: fmt.Sprintf("m%d", n), Body: bytes.Repeat([]byte{byte(n)}, bodySize)}
}

func (f *fixture) send(n int) error {
	return f.queue.Send(context.Background(), []*driver.Message{message(n)})[0].Err
}

// drain receives and completes until the queue is empty.
func (f *fixture) drain() map[string]bool {
	f.Helper()
	ids := make(map[string]bool)
	for {
		got, err := f.queue.Receive(context.Background(), 10, 0)
		if err != nil {
			f.Fatal(err)
		}
		if len(got) == 0 {
			return ids
		}
		for _, d := range got {
			if !bytes.Equal(d.Body, bytes.Repeat(d.Body[:1], bodySize)) {
				f.Errorf("the body of %s was changed", d.ID)
			}
			ids[d.ID] = true
			if err := f.queue.Settle(context.Background(), []driver.Settlement{{Delivery: d, Kind: driver.Complete}})[0]; err != nil {
				f.Fatal(err)
			}
		}
	}
}

// fill sends until it fails, and returns how many were confirmed, and why not
// more.
func (f *fixture) fill() (int, error) {
	for n := 0; ; n++ {
		if err := f.send(n); err != nil {
			return n, err
		}
	}
}

func wantKind(tb testing.TB, what string, err error, kind driver.Kind) {
	tb.Helper()
	if driver.KindOf(err) != kind || err == nil {
		tb.Errorf("%s: the error is %v (kind %d), want kind %d", what, err, driver.KindOf(err), kind)
		return
	}
	tb.Logf("%s: %v", what, err)
}

func TestMaxBytes(t *testing.T) {
	f := open(t, filepath.Join(t.TempDir(), "q.db"), &sqlitequeue.Options{MaxBytes: 2 << 20})
	n, err := f.fill()
	wantKind(t, "Send to a full file", err, driver.Full)
	if n < 100 || n > 256 {
		t.Errorf("%d messages of %d bytes fit in 2 MiB", n, bodySize)
	}
	// What lies there can be handled all the same.
	got, err := f.queue.Receive(t.Context(), 2, 0)
	if err != nil || len(got) != 2 {
		t.Fatalf("%d messages, %v", len(got), err)
	}
	for i, kind := range []driver.SettleKind{driver.Abandon, driver.MoveToDeadLetter} {
		if err := f.queue.Settle(t.Context(), []driver.Settlement{{Delivery: got[i], Kind: kind, Reason: "r"}})[0]; err != nil {
			t.Errorf("%s in a full file: %v", kind, err)
		}
	}
	if ids := f.drain(); len(ids) != n-1 {
		t.Errorf("%d of %d messages were received", len(ids), n-1)
	}
	if err := f.send(n); err != nil {
		t.Errorf("Send when there is room again: %v", err)
	}
}

func TestMaxMessages(t *testing.T) {
	f := open(t, filepath.Join(t.TempDir(), "q.db"), nil)
	if err := f.broker.Declare(t.Context(), "small", &sqlitequeue.QueueOptions{MaxMessages: 3}); err != nil {
		t.Fatal(err)
	}
	var err error
	if f.queue, err = f.broker.Open(t.Context(), "small", nil); err != nil {
		t.Fatal(err)
	}
	r := f.queue.Send(t.Context(), []*driver.Message{message(0), message(1), {}, message(2), message(3)})
	for i, kind := range []driver.Kind{-1 + 1, 0, driver.Invalid, 0, driver.Full} {
		if driver.KindOf(r[i].Err) != kind || (kind == 0) != (r[i].Err == nil) {
			t.Errorf("message %d: %v, want kind %d", i, r[i].Err, kind)
		}
	}
	// Dead letters count, and dead-lettering is always allowed.
	got, err := f.queue.Receive(t.Context(), 1, 0)
	if err != nil || len(got) != 1 {
		t.Fatalf("%d messages, %v", len(got), err)
	}
	if err := f.queue.Settle(t.Context(), []driver.Settlement{{Delivery: got[0], Kind: driver.MoveToDeadLetter}})[0]; err != nil {
		t.Error(err)
	}
	wantKind(t, "Send", f.send(4), driver.Full)
	if ids := f.drain(); len(ids) != 2 {
		t.Errorf("received %v", ids)
	}
	if err := f.send(5); err != nil {
		t.Error(err)
	}
}

func TestLocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "q.db")
		f := open(t, path, &sqlitequeue.Options{LockTimeout: 200 * time.Millisecond})
		for n := range 3 {
			if err := f.send(n); err != nil {
				t.Fatal(err)
			}
		}
		a := attack(t, path)
		execute(t, a, "BEGIN IMMEDIATE")
		err := f.send(3)
		wantKind(t, "Send to a locked file", err, driver.Unavailable)
		var e *driver.Error
		if !errors.As(err, &e) || !e.Transient() {
			t.Errorf("not transient: %v", err)
		}
		_, err = f.queue.Receive(t.Context(), 1, time.Second)
		wantKind(t, "Receive from a locked file", err, driver.Unavailable)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if _, err = f.queue.Receive(ctx, 1, time.Second); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Receive whose context ends: %v", err)
		}
		_, err = sqlitequeue.Open(t.Context(), path, &sqlitequeue.Options{LockTimeout: 100 * time.Millisecond})
		wantKind(t, "Open of a locked file", err, driver.Unavailable)
		// Looking takes no lock.
		if st, err := f.queue.Stats(t.Context()); err != nil || st.Ready != 3 {
			t.Errorf("Stats: %+v, %v", st, err)
		}
		execute(t, a, "COMMIT")
		if err := f.send(4); err != nil {
			t.Error(err)
		}
		if ids := f.drain(); len(ids) != 4 || ids["m3"] {
			t.Errorf("received %v, want what was confirmed: m0, m1, m2, m4", ids)
		}
	})
}

func TestNewerSchema(t *testing.T) {
	path := filepath.Join(t.TempDir(), "q.db")
	f := open(t, path, nil)
	if err := f.send(0); err != nil {
		t.Fatal(err)
	}
	if err := f.broker.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	a := attack(t, path)
	execute(t, a, "PRAGMA user_version = 99")
	if _, err := sqlitequeue.Open(t.Context(), path, nil); !errors.Is(err, sqlitequeue.ErrNewer) {
		t.Errorf("Open: %v, want ErrNewer", err)
	} else {
		t.Log(err)
	}
	execute(t, a, "PRAGMA user_version = 1")
	if ids := open(t, path, nil).drain(); !ids["m0"] {
		t.Error("the message is lost")
	}
}

func TestForeign(t *testing.T) {
	path := filepath.Join(t.TempDir(), "other.db")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a := attack(t, path)
	execute(t, a, "CREATE TABLE theirs (x)")
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"", "PRAGMA application_id = 7"} {
		if id != "" {
			execute(t, a, id)
			if before, err = os.ReadFile(path); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := sqlitequeue.Open(t.Context(), path, nil); !errors.Is(err, sqlitequeue.ErrForeign) {
			t.Errorf("Open: %v, want ErrForeign", err)
		}
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
			t.Errorf("the file of another application was changed (%v)", err)
		}
	}
}

func TestPaths(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"empty":          "",
		"memory":         ":memory:",
		"URI":            "file:" + filepath.Join(dir, "q.db"),
		"NUL":            filepath.Join(dir, "a\x00b"),
		"folder":         filepath.Join(dir, "folder"),
		"missing parent": filepath.Join(dir, "missing", "q.db"),
		"log":            filepath.Join(dir, "q.db-wal"),
		"device":         os.DevNull,
	} {
		_, err := sqlitequeue.Open(t.Context(), path, nil)
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		t.Logf("%s: %v", name, err)
		if name == "missing parent" && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, want fs.ErrNotExist", name, err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("the folder has %v, %v; want nothing new", entries, err)
	}
	if _, err := sqlitequeue.Open(t.Context(), filepath.Join(dir, "none.db"), &sqlitequeue.Options{MustExist: true}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("MustExist: %v", err)
	}
}

// TestNames opens files whose names mean something in a URI.
func TestNames(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"plain.db", "with space", "a?mode=ro", "a#b", "100%41", "ünïcode", `back\slash`, "a;b'c\"d"} {
		f := open(t, filepath.Join(dir, name), nil)
		if err := f.send(1); err != nil {
			t.Errorf("%q: %v", name, err)
		}
		info, err := os.Lstat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%q: %v, %v; want mode 0600", name, info, err)
		}
		for _, suffix := range []string{"-wal", "-shm"} {
			if info, err := os.Lstat(filepath.Join(dir, name+suffix)); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%q: %v, %v; want mode 0600", name+suffix, info, err)
			}
		}
	}
}

// TestLinks has one file under three names.
func TestLinks(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "q.db")
	f := open(t, path, nil)
	soft, hard := filepath.Join(dir, "soft"), filepath.Join(dir, "hard")
	if err := os.Symlink("q.db", soft); err != nil {
		t.Skipf("this file system has no links: %v", err)
	}
	resolved, err := filepath.EvalSymlinks(path)
	if err != nil {
		t.Fatal(err)
	}
	other := open(t, soft, nil)
	if other.broker.Path() != resolved || f.broker.Path() != resolved {
		t.Errorf("paths %q and %q, want %q", f.broker.Path(), other.broker.Path(), resolved)
	}
	if err := f.send(1); err != nil {
		t.Fatal(err)
	}
	if ids := other.drain(); !ids["m1"] {
		t.Error("a message sent by one name did not come by the other")
	}
	if err := os.Link(path, hard); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlitequeue.Open(t.Context(), hard, nil); err == nil || !strings.Contains(err.Error(), "hard links") {
		t.Errorf("a file with two names, by the other: %v; opened, it would be destroyed", err)
	} else {
		t.Log(err)
	}
	for path, want := range map[string]bool{
		path: true, soft: true, hard: true, path + "-wal": true, path + "-shm": true,
		filepath.Join(dir, "none"): false, dir: false,
	} {
		if got := f.broker.SameFile(path); got != want {
			t.Errorf("SameFile(%q) = %v", path, got)
		}
	}
}
