package keys_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/keys/keytest"
)

func TestUpdateFile(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	path := filepath.Join(dir, "keys.json")
	created := time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.FixedZone("", 3600))
	a, err := keys.New("team/a:1", secret(1), &keys.Options{Created: created, Expires: created.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	err = keys.UpdateFile(path, func(s *keys.Set) error {
		if s.Current != "" || s.Keys != nil {
			t.Errorf("a new file holds %+v", s)
		}
		s.Current, s.Keys = a.ID(), []*keys.Key{a}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if a.Err() != nil {
		t.Error("the caller's key was destroyed")
	}
	var read *keys.Key
	b := mustKey(t, "b", 2)
	err = keys.UpdateFile(path, func(s *keys.Set) error {
		if s.Current != a.ID() || len(s.Keys) != 1 || !s.Keys[0].Equal(a) {
			t.Errorf("the file holds %+v", s)
		}
		read = s.Keys[0]
		s.Current, s.Keys = "b", append(s.Keys, b)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if read.Err() == nil {
		t.Error("a key that was read lives on")
	}
	f := open(t, path, nil)
	got, err := f.GetKey(ctx, a.ID())
	if err != nil || !got.Equal(a) || !got.Created().Equal(created) || !got.Expires().Equal(created.Add(time.Hour)) {
		t.Errorf("read back: %v, created %v, expires %v, %v", got, got.Created(), got.Expires(), err)
	}
	if id, err := f.CurrentKeyID(ctx); id != "b" || err != nil {
		t.Errorf("current: %q, %v", id, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestUpdateFileRefuses(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "keys.json")
	write(t, path, document("a", "b"))
	mine := errors.New("mine")
	gone := mustKey(t, "c", 3)
	gone.Destroy()
	late, err := keys.New("c", secret(3), &keys.Options{Expires: time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC)})
	if err != nil {
		t.Fatal(err)
	}
	many := make([]*keys.Key, 20000)
	for i := range many {
		many[i] = mustKey(t, keys.ID(fmt.Sprintf("key-%d", i)), 3)
	}
	for name, c := range map[string]struct {
		change func(*keys.Set) error
		is     error
	}{
		"error":          {func(*keys.Set) error { return mine }, mine},
		"no keys":        {func(s *keys.Set) error { s.Keys = nil; return nil }, keys.ErrInvalidKey},
		"nil key":        {func(s *keys.Set) error { s.Keys = append(s.Keys, nil); return nil }, keys.ErrInvalidKey},
		"twice":          {func(s *keys.Set) error { s.Keys = append(s.Keys, s.Keys[0]); return nil }, keys.ErrInvalidKey},
		"no such key":    {func(s *keys.Set) error { s.Current = "c"; return nil }, keys.ErrInvalidKey},
		"other secret":   {func(s *keys.Set) error { s.Keys[0] = mustKey(t, "a", 9); return nil }, keys.ErrInvalidKey},
		"destroyed":      {func(s *keys.Set) error { s.Keys = append(s.Keys, gone); return nil }, keys.ErrDestroyed},
		"year 12026":     {func(s *keys.Set) error { s.Keys = append(s.Keys, late); return nil }, keys.ErrInvalidKey},
		"too many":       {func(s *keys.Set) error { s.Keys = append(s.Keys, many...); return nil }, keys.ErrInvalidKey},
		"another update": {func(*keys.Set) error { return keys.UpdateFile(path, func(*keys.Set) error { return nil }) }, keys.ErrUnavailable},
	} {
		if err := keys.UpdateFile(path, c.change); !errors.Is(err, c.is) {
			t.Errorf("%s: %v, want %v", name, err, c.is)
		} else if found := keytest.Leak(err.Error(), secret('a')); found != "" {
			t.Errorf("%s: the error shows %s", name, found)
		}
		if text, err := os.ReadFile(path); err != nil || string(text) != document("a", "b") {
			t.Errorf("%s: the file became %s, %v", name, text, err)
		}
	}
	func() {
		defer func() { _ = recover() }()
		_ = keys.UpdateFile(path, func(*keys.Set) error { panic("in change") })
	}()
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Fatalf("left behind: %v, %v", left, err)
	}

	write(t, path+".lock", "")
	err = keys.UpdateFile(path, func(*keys.Set) error { t.Error("called in spite of the lock"); return nil })
	if !errors.Is(err, keys.ErrUnavailable) || !strings.Contains(err.Error(), "remove "+path+".lock") {
		t.Errorf("locked: %v", err)
	}
	if _, err := os.Stat(path + ".lock"); err != nil {
		t.Errorf("the lock of another is gone: %v", err)
	}
	if err := keys.UpdateFile(filepath.Join(dir, "none", "keys.json"), func(*keys.Set) error { return nil }); !errors.Is(err, keys.ErrUnavailable) {
		t.Errorf("no folder: %v", err)
	}
	write(t, filepath.Join(dir, "broken"), "{")
	if err := keys.UpdateFile(filepath.Join(dir, "broken"), func(*keys.Set) error { return nil }); !errors.Is(err, keys.ErrInvalidKey) {
		t.Errorf("a broken file: %v", err)
	}
	if err := keys.UpdateFile(filepath.Join(path, "x"), func(*keys.Set) error { return nil }); !errors.Is(err, keys.ErrUnavailable) {
		t.Errorf("a file as folder: %v", err)
	}
}

// TestUpdateFileTellsThatItFailed: here the file that is to take the place of the old one goes
// meanwhile, as by an operator that takes it for left behind.
func TestUpdateFileTellsThatItFailed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	write(t, path, document("a"))
	err := keys.UpdateFile(path, func(s *keys.Set) error { s.Current = ""; return os.Remove(path + ".lock") })
	if !errors.Is(err, keys.ErrUnavailable) {
		t.Errorf("%v, want %v", err, keys.ErrUnavailable)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != document("a") {
		t.Errorf("the file became %s, %v", text, err)
	}
}

// TestUpdateFileTogether: no update is lost, however many want to make one.
func TestUpdateFileTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	write(t, path, document("a"))
	var mu sync.Mutex
	want := []keys.ID{"a"}
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			for i := range 10 {
				k := mustKey(t, keys.ID(fmt.Sprintf("key-%d-%d", g, i)), byte(10*g+i))
				err := keys.UpdateFile(path, func(s *keys.Set) error { s.Keys = append(s.Keys, k); return nil })
				if err == nil {
					mu.Lock()
					want = append(want, k.ID())
					mu.Unlock()
				} else if !errors.Is(err, keys.ErrUnavailable) {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	ids, err := open(t, path, nil).ValidKeyIDs(t.Context())
	slices.Sort(ids)
	slices.Sort(want)
	if err != nil || !slices.Equal(ids, want) || len(ids) < 2 {
		t.Errorf("the file holds %q, %v; want %q", ids, err, want)
	}
}

func TestUpdateFileLink(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "keys.json"), filepath.Join(dir, "link")
	write(t, path, document("a"))
	if err := os.Symlink(path, link); err != nil {
		t.Skip("no symbolic links here")
	}
	if err := keys.UpdateFile(link, func(s *keys.Set) error { s.Current = ""; return nil }); err != nil {
		t.Fatal(err)
	}
	if target, err := os.Readlink(link); err != nil || target != path {
		t.Errorf("the link was replaced: %q, %v", target, err)
	}
	if _, err := open(t, link, nil).CurrentKeyID(t.Context()); !errors.Is(err, keys.ErrNotFound) {
		t.Errorf("current: %v", err)
	}
}
