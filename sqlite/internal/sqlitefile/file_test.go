package sqlitefile

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/queue-runtime/queue/driver"
)

const testID int32 = 0x74657374

var testMigrations = []string{"CREATE TABLE t (n INTEGER) STRICT; INSERT INTO t VALUES (0)"}

func config(path string) Config {
	return Config{Path: path, Create: true, ApplicationID: testID, Migrations: testMigrations, LockTimeout: time.Minute, Readers: 2}
}

func open(t *testing.T, c Config) *File {
	t.Helper()
	f, err := Open(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(context.Background()); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return f
}

func (f *File) text(t *testing.T, query string) string {
	t.Helper()
	var s string
	err := f.Read(t.Context(), func(c *Conn) (err error) {
		s, err = c.Text("SELECT CAST((" + query + ") AS TEXT)")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestMigrations(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.db")
	first := open(t, config(path))
	if err := first.Close(t.Context()); err != nil {
		t.Fatal(err)
	}

	// One that fails half way leaves the file as it was.
	c := config(path)
	c.Migrations = append(testMigrations[:1:1], "CREATE TABLE u (n INTEGER); INSERT INTO missing VALUES (1)")
	if _, err := Open(t.Context(), c); driver.KindOf(err) != driver.Corrupt {
		t.Errorf("a migration that fails: %v", err)
	}

	c.Migrations = append(testMigrations[:1:1], "ALTER TABLE t ADD COLUMN m INTEGER; UPDATE t SET m = 7", "UPDATE t SET m = m + 1")
	second := open(t, c)
	if m := second.text(t, "SELECT m FROM t"); m != "8" {
		t.Errorf("m is %q after both migrations, want 8", m)
	}
	if n := second.text(t, "SELECT count(*) FROM sqlite_schema"); n != "1" {
		t.Errorf("%s tables, want 1: what the failed migration made is gone", n)
	}
	third := open(t, c) // nothing is done twice
	if m := third.text(t, "SELECT m FROM t"); m != "8" {
		t.Errorf("m is %q after another Open, want 8", m)
	}

	// A program that knows only the first refuses it.
	if _, err := Open(t.Context(), config(path)); !errors.Is(err, ErrNewer) {
		t.Errorf("Open by an older program: %v, want ErrNewer", err)
	}
}

// TestSettings reads back what a connection is set to.
func TestSettings(t *testing.T) {
	for _, normal := range []bool{false, true} {
		c := config(filepath.Join(t.TempDir(), "f.db"))
		c.Normal = normal
		f := open(t, c)
		level := func(write func(context.Context, func(*Conn) error) error) (n int64) {
			err := write(t.Context(), func(c *Conn) (err error) {
				// Asked anew each time: the answer is part of the statement.
				fresh := &Conn{raw: c.raw, statements: make(map[string]statement)}
				n, err = fresh.Int("PRAGMA synchronous")
				for _, s := range fresh.statements {
					err = errors.Join(err, s.Close())
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		full := int64(2)
		if normal {
			full = 1
		}
		for round := range 3 { // statements are kept: the first round does not tell of the others
			if got, want := [2]int64{level(f.Write), level(f.WriteUnsynced)}, [2]int64{full, 1}; got != want {
				t.Errorf("Normal %v, round %d: synchronous is %v, want %v", normal, round, got, want)
			}
		}
		wantAll, wantSynced := int64(6), 3*(full-1)
		if all, synced := f.Commits(); all != wantAll || synced != wantSynced {
			t.Errorf("Normal %v: %d commits, %d of them synced; want %d, %d", normal, all, synced, wantAll, wantSynced)
		}
		for pragma, want := range map[string]string{
			"journal_mode": "wal", "application_id": "1952805748", "auto_vacuum": "2", "trusted_schema": "0", "cell_size_check": "1", "user_version": "1",
		} {
			if got := f.text(t, "SELECT * FROM pragma_"+pragma); got != want {
				t.Errorf("%s is %s, want %s", pragma, got, want)
			}
		}
	}
}

func TestReadDoesNotWrite(t *testing.T) {
	f := open(t, config(filepath.Join(t.TempDir(), "f.db")))
	err := f.Read(t.Context(), func(c *Conn) error {
		_, err := c.Exec("UPDATE t SET n = 1")
		return err
	})
	if driver.KindOf(err) != driver.Permission {
		t.Errorf("a write by Read: %v, want driver.Permission", err)
	}
}

func TestSnapshot(t *testing.T) {
	f := open(t, config(filepath.Join(t.TempDir(), "f.db")))
	err := f.Snapshot(t.Context(), func(c *Conn) error {
		before, err := c.Int("SELECT n FROM t")
		if err != nil {
			return err
		}
		if err := f.Write(t.Context(), increment); err != nil {
			return err
		}
		after, err := c.Int("SELECT n FROM t")
		if before != after {
			t.Errorf("n went from %d to %d within a snapshot", before, after)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if n := f.text(t, "SELECT n FROM t"); n != "1" {
		t.Errorf("n is %s afterwards", n)
	}
}

func increment(c *Conn) error {
	_, err := c.Exec("UPDATE t SET n = n + 1")
	return err
}

func TestClose(t *testing.T) {
	f := open(t, config(filepath.Join(t.TempDir(), "f.db")))
	for range 2 {
		if err := f.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	for name, err := range map[string]error{
		"Write":    f.Write(t.Context(), increment),
		"Read":     f.Read(t.Context(), func(*Conn) error { return nil }),
		"Snapshot": f.Snapshot(t.Context(), func(*Conn) error { return nil }),
		"Check":    f.Check(t.Context()),
	} {
		if !errors.Is(err, driver.ErrClosed) {
			t.Errorf("%s after Close: %v, want driver.ErrClosed", name, err)
		}
	}
}

// TestAltered has values of other kinds in every column: an attacker who can write to
// the file can put them there.
func TestAltered(t *testing.T) {
	f := open(t, config(filepath.Join(t.TempDir(), "f.db")))
	err := f.Read(t.Context(), func(c *Conn) error {
		return c.Query("SELECT 'text', x'ff00', 1.5, NULL, 7, '', x''", func(r Row) error {
			for i, want := range []int64{0, 0, 0, 0, 7, 0, 0} {
				if got := r.Int(i); got != want {
					t.Errorf("Int(%d) = %d, want %d", i, got, want)
				}
			}
			for i, want := range []string{"text", "", "", "", "", "", ""} {
				if got := r.Text(i); got != want {
					t.Errorf("Text(%d) = %q, want %q", i, got, want)
				}
			}
			for i, want := range []string{"text", "\xff\x00", "", "", "", "", ""} {
				if got := string(r.Bytes(i)); got != want {
					t.Errorf("Bytes(%d) = %q, want %q", i, got, want)
				}
			}
			for i, want := range []bool{false, false, false, true, false, false, false} {
				if got := r.Null(i); got != want && i != 6 {
					t.Errorf("Null(%d) = %v, want %v", i, got, want)
				}
			}
			return nil
		})
	})
	if err != nil {
		t.Error(err)
	}
}

// TestTogether opens a file that is not there from many sides at once.
func TestTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.db")
	errs := make(chan error)
	const n = 8
	for range n {
		go func() {
			f, err := Open(context.Background(), config(path))
			if err == nil {
				err = errors.Join(f.Write(context.Background(), increment), f.Close(context.Background()))
			}
			errs <- err
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if got := open(t, config(path)).text(t, "SELECT n FROM t"); got != "8" {
		t.Errorf("n is %s, want %d", got, n)
	}
}
