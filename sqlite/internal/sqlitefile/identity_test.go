package sqlitefile

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/queue-runtime/queue/driver"
)

// TestInPlace: nothing is confirmed that goes to a file which no path leads to.
func TestInPlace(t *testing.T) {
	for _, name := range []string{"f.db", "f.db-wal", "f.db-shm"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "f.db")
			f := open(t, config(path))
			if err := f.Write(t.Context(), increment); err != nil {
				t.Fatal(err)
			}
			refused := func(what string) {
				t.Helper()
				for _, call := range []struct {
					name string
					do   func() error
				}{
					{"Write", func() error { return f.Write(t.Context(), increment) }},
					{"WriteUnsynced", func() error { return f.WriteUnsynced(t.Context(), increment) }},
					{"Read", func() error { return f.Read(t.Context(), func(*Conn) error { return nil }) }},
				} {
					if call.name != "Write" {
						f.looked.Store(nil) // as lookEvery later
					}
					if err := call.do(); driver.KindOf(err) != driver.Corrupt {
						t.Errorf("%s, %s: %v, want driver.Corrupt", what, call.name, err)
					}
				}
			}
			away := filepath.Join(dir, "away")
			if err := os.Rename(filepath.Join(dir, name), away); err != nil {
				t.Fatal(err)
			}
			refused("moved away")
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			refused("replaced")
			if err := os.Rename(away, filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
			if err := f.Write(t.Context(), increment); err != nil {
				t.Errorf("put back: %v", err)
			}
			if n := f.text(t, "SELECT n FROM t"); n != "2" {
				t.Errorf("n is %s, want 2: what was confirmed", n)
			}
		})
	}
}

// TestRemoved: Close of a file that was removed leaves alone what has taken its
// place.
func TestRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.db")
	first := open(t, config(path))
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(path + suffix); err != nil {
			t.Fatal(err)
		}
	}
	second := open(t, config(path))
	if err := second.Write(t.Context(), increment); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(context.Background()); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := second.Write(t.Context(), increment); err != nil {
		t.Errorf("Write to the new file: %v", err)
	}
	if err := second.Check(t.Context()); err != nil {
		t.Error(err)
	}
	if err := second.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if n := open(t, config(path)).text(t, "SELECT n FROM t"); n != "2" {
		t.Errorf("n is %s, want 2", n)
	}
}

func BenchmarkInPlace(b *testing.B) {
	f, err := Open(b.Context(), config(filepath.Join(b.TempDir(), "f.db")))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = f.Close(context.Background()) }()
	for b.Loop() {
		if err := f.inPlace(); err != nil {
			b.Fatal(err)
		}
	}
}
