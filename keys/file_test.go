package keys_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/keys"
)

// document is a key file with keys of these IDs; the first is current.
func document(ids ...string) string {
	var list []string
	for _, id := range ids {
		list = append(list, fmt.Sprintf(`{"id": %q, "secret": %q}`, id, base64.StdEncoding.EncodeToString(secret(id[0]))))
	}
	return fmt.Sprintf(`{"current": %q, "keys": [%s]}`, ids[0], strings.Join(list, ", "))
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// age sets the file's time back, so that it is surely told from a later change.
func age(t *testing.T, path string, d time.Duration) {
	t.Helper()
	at := time.Now().Add(-d)
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, path string, o *keys.FileOptions) *keys.File {
	t.Helper()
	f, err := keys.OpenFile(path, o)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFileMode(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("files have no such modes here")
	}
	path := filepath.Join(t.TempDir(), "keys.json")
	write(t, path, document("a"))
	for mode := range fs.FileMode(0o1000) {
		if mode&0o400 == 0 {
			continue // its owner cannot read it, unless that is root
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := keys.OpenFile(path, nil)
		group := mode&0o037 == 0 && os.Geteuid() == 0 // root's file, and its group is ours
		if mode&0o077 == 0 || group {
			if err != nil {
				t.Errorf("%04o: %v", mode, err)
			}
			continue
		}
		if !errors.Is(err, keys.ErrUnavailable) || !strings.Contains(err.Error(), fmt.Sprintf("mode %04o", mode)) ||
			!strings.Contains(err.Error(), "chmod 600") || !strings.Contains(err.Error(), path) {
			t.Errorf("%04o: %v; want an error that says the mode and chmod 600", mode, err)
		}
	}
}

func TestOpenFileRefuses(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "keys.json")
	if _, err := keys.OpenFile(path, nil); !errors.Is(err, keys.ErrUnavailable) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if _, err := keys.OpenFile(dir, nil); !errors.Is(err, keys.ErrUnavailable) || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a folder: %v", err)
	}
	write(t, path, document("a")+strings.Repeat(" ", 1<<20))
	if _, err := keys.OpenFile(path, nil); !errors.Is(err, keys.ErrInvalidKey) || !strings.Contains(err.Error(), "use 1048576 at most") {
		t.Errorf("a large file: %v", err)
	}
	write(t, path, document("a")+strings.Repeat(" ", 1<<20-len(document("a"))))
	if _, err := keys.OpenFile(path, nil); err != nil {
		t.Errorf("the largest file: %v", err)
	}
	write(t, path, document("a", "a"))
	if _, err := keys.OpenFile(path, nil); !errors.Is(err, keys.ErrInvalidKey) || !strings.Contains(err.Error(), "a is there twice") {
		t.Errorf("an ID twice: %v", err)
	}
	write(t, path, document("a"))
	if _, err := keys.OpenFile(path, &keys.FileOptions{CheckEvery: -1}); err == nil {
		t.Error("a negative interval was accepted")
	}
}

// TestFileReload follows one file through changes in place, by rename, and
// breakage.
func TestFileReload(t *testing.T) {
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "keys.json")
	write(t, path, document("a", "b"))
	age(t, path, time.Hour)
	var told []error
	f := open(t, path, &keys.FileOptions{CheckEvery: 1, OnError: func(err error) { told = append(told, err) }})
	a, err := f.GetKey(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	b, err := f.GetKey(ctx, "b")
	if err != nil {
		t.Fatal(err)
	}

	b.Confirm()
	write(t, path, document("c", "a")) // in place, another size
	if id, err := f.CurrentKeyID(ctx); id != "c" || err != nil {
		t.Errorf("current: %q, %v", id, err)
	}
	added, err := f.GetKey(ctx, "c")
	if err != nil {
		t.Fatal(err)
	}
	added.Confirm()
	if again, err := f.GetKey(ctx, "a"); again != a || err != nil {
		t.Errorf("the kept key is another: %v, %v", again, err)
	}
	if b.Err() == nil {
		t.Error("the key that is gone was not destroyed")
	}
	if _, err := f.GetKey(ctx, "b"); !errors.Is(err, keys.ErrNotFound) {
		t.Errorf("the key that is gone: %v", err)
	}

	write(t, path, document("a", "c")) // in place, the same size, perhaps the same time
	if id, err := f.CurrentKeyID(ctx); id != "a" || err != nil {
		t.Errorf("current: %q, %v", id, err)
	}
	if err := f.Err(); err != nil {
		t.Errorf("Err: %v", err)
	}

	for _, c := range []struct {
		name string
		do   func()
		says string
	}{
		{"cut short", func() { write(t, path, document("a")[:50]) }, "line 1"},
		{"empty", func() { write(t, path, "") }, "want an object"},
		{"gone", func() { _ = os.Remove(path) }, "no such file"},
		{"another secret", func() { write(t, path, strings.Replace(document("a", "x"), `"x"`, `"c"`, 1)) }, "c named another secret"},
		{"a removed ID with another secret", func() { write(t, path, strings.Replace(document("a", "x"), `"x"`, `"b"`, 1)) }, "b named another secret"},
		{"open to all", func() { write(t, path, document("a", "c")); _ = os.Chmod(path, 0o644) }, "chmod 600"},
	} {
		told = nil
		c.do()
		for range 3 {
			if again, err := f.GetKey(ctx, "a"); again != a || err != nil || a.Err() != nil {
				t.Errorf("%s: the known key: %v, %v", c.name, again, err)
			}
			if id, err := f.CurrentKeyID(ctx); id != "a" || err != nil {
				t.Errorf("%s: current: %q, %v", c.name, id, err)
			}
			if ids, err := f.ValidKeyIDs(ctx); len(ids) != 2 || err != nil {
				t.Errorf("%s: IDs: %q, %v", c.name, ids, err)
			}
		}
		if _, err := f.GetKey(ctx, "x"); !errors.Is(err, keys.ErrUnavailable) || errors.Is(err, keys.ErrNotFound) {
			t.Errorf("%s: an unknown key: %v, want %v", c.name, err, keys.ErrUnavailable)
		}
		if len(told) != 1 || !strings.Contains(told[0].Error(), c.says) || !strings.Contains(told[0].Error(), path) {
			t.Errorf("%s: told %v, want once %q", c.name, told, c.says)
		}
		if err := f.Err(); err == nil || len(told) == 1 && err.Error() != told[0].Error() {
			t.Errorf("%s: Err: %v", c.name, err)
		}
	}

	told = nil
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.Err(); err != nil || told != nil {
		t.Errorf("repaired: %v, told %v", err, told)
	}
	if _, err := f.GetKey(ctx, "x"); !errors.Is(err, keys.ErrNotFound) {
		t.Errorf("an unknown key: %v", err)
	}
	if c, err := f.GetKey(ctx, "c"); err != nil || c.Err() != nil {
		t.Errorf("a key of the repaired file: %v, %v", c, err)
	}
}

// TestFileCorrectedSecret: a file with the wrong secret under an ID is corrected while the
// program runs, until a message opened under it.
func TestFileCorrectedSecret(t *testing.T) {
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "keys.json")
	write(t, path, document("a"))
	right := strings.Replace(document("x"), `"x"`, `"a"`, -1)
	f := open(t, path, &keys.FileOptions{CheckEvery: 1})
	wrong, err := f.GetKey(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, right)
	k, err := f.GetKey(ctx, "a")
	if err != nil || k == wrong || k.Equal(wrong) {
		t.Fatalf("the corrected key: %v, %v, want another secret", k, err)
	}
	k.Confirm()
	write(t, path, document("a"))
	if again, err := f.GetKey(ctx, "a"); again != k || err != nil || f.Err() == nil {
		t.Errorf("another secret for a confirmed ID: %v, %v, Err %v; want the known key and an error", again, err, f.Err())
	}
}

// TestFileTimes: a new expiry makes a new *Key of the same secret; the old one stays as
// it was.
func TestFileTimes(t *testing.T) {
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "keys.json")
	write(t, path, document("a"))
	f := open(t, path, &keys.FileOptions{CheckEvery: 1})
	old, err := f.GetKey(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, strings.Replace(document("a"), `"id"`, `"expires": "2031-02-03T04:05:06+01:00", "created": null, "id"`, 1))
	k, err := f.GetKey(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	if k == old || !k.Expires().Equal(time.Date(2031, 2, 3, 3, 5, 6, 0, time.UTC)) || !k.Created().IsZero() {
		t.Errorf("created %v, expires %v", k.Created(), k.Expires())
	}
	if !k.Equal(old) {
		t.Error("the key has another secret, or the old one is destroyed")
	}
}

// TestFileCheckEvery: within the interval the file is not looked at, and an
// unchanged one is not read again.
func TestFileCheckEvery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "keys.json")
		write(t, path, document("a"))
		age(t, path, time.Hour)
		slow := open(t, path, &keys.FileOptions{CheckEvery: time.Hour})
		quick := open(t, path, &keys.FileOptions{CheckEvery: 1})
		normal := open(t, path, nil)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		// A change that a stat does not show, because the time was set back: read
		// or not is what tells.
		write(t, path, document("b"))
		if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
			t.Fatal(err)
		}
		wants := func(when string, want map[*keys.File]keys.ID) {
			t.Helper()
			time.Sleep(time.Nanosecond)
			for name, f := range map[string]*keys.File{"slow": slow, "quick": quick, "normal": normal} {
				if id, err := f.CurrentKeyID(t.Context()); id != want[f] || err != nil {
					t.Errorf("%s, %s: %q, %v; want %q", when, name, id, err, want[f])
				}
			}
		}
		wants("no change to be seen", map[*keys.File]keys.ID{slow: "a", quick: "a", normal: "a"})
		age(t, path, time.Minute)
		wants("a change", map[*keys.File]keys.ID{slow: "a", quick: "b", normal: "a"})
		time.Sleep(time.Second)
		wants("a second later", map[*keys.File]keys.ID{slow: "a", quick: "b", normal: "b"})
	})
}

// TestFileIsLookedAtInTime: not before the interval is over, the first and each later one, and
// then at once.
func TestFileIsLookedAtInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "keys.json")
		write(t, path, document("a"))
		f := open(t, path, &keys.FileOptions{CheckEvery: time.Minute})
		was := keys.ID("a")
		for _, next := range []keys.ID{"b", "c", "d"} {
			write(t, path, document(string(next)))
			wantCurrent(t, f, was)
			time.Sleep(time.Minute - 1)
			wantCurrent(t, f, was)
			time.Sleep(time.Nanosecond)
			wantCurrent(t, f, next)
			was = next
		}
	})
}

// TestFileSameTime: a change within the step of the file system's clock is seen.
func TestFileSameTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // no time passes between the two
		path := filepath.Join(t.TempDir(), "keys.json")
		write(t, path, document("a"))
		age(t, path, 0)
		f := open(t, path, &keys.FileOptions{CheckEvery: 1})
		write(t, path, document("b"))
		age(t, path, 0)
		time.Sleep(time.Nanosecond)
		wantCurrent(t, f, "b")
	})
}

// TestFileModeLater: a mode that changes is seen though nothing else does, in
// both directions.
func TestFileModeLater(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	write(t, path, document("a"))
	age(t, path, time.Hour)
	f := open(t, path, &keys.FileOptions{CheckEvery: 1})
	for range 2 {
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := f.Err(); err == nil || !strings.Contains(err.Error(), "mode 0644") {
			t.Errorf("open to others: %v", err)
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := f.Err(); err != nil {
			t.Errorf("repaired: %v", err)
		}
	}
}

func TestFileConcurrent(t *testing.T) {
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "keys.json")
	write(t, path, document("a", "b"))
	f := open(t, path, &keys.FileOptions{CheckEvery: 1})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 200 {
				k, err := f.GetKey(ctx, "a")
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := k.Derive("", nil); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range 50 {
		text := document("a", "b")
		if i%2 == 0 {
			text = document("a", "c")
		}
		next := path + ".next"
		write(t, next, text)
		if err := os.Rename(next, path); err != nil {
			t.Fatal(err)
		}
	}
	all.Wait()
	if err := f.Err(); err != nil {
		t.Error(err)
	}
}
