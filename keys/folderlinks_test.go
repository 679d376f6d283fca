//go:build unix

package keys_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/queue-runtime/queue/keys"
)

// TestFolderOfBrokenLinks: links that lead nowhere, round in a circle or to what is no
// file change nothing, are told, and hold up no caller; a folder without them is taken again.
func TestFolderOfBrokenLinks(t *testing.T) {
	good := map[string]string{"a": text('a'), "b": text('b')}
	for name, spoil := range map[string]func(m *mounted) error{
		"data links to itself": func(m *mounted) error { return relink("..data", filepath.Join(m.path, "..data")) },
		"data dangles":         func(m *mounted) error { return relink("..gone", filepath.Join(m.path, "..data")) },
		"data is a file": func(m *mounted) error {
			if err := os.Remove(filepath.Join(m.path, "..data")); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(m.path, "..data"), nil, 0o400)
		},
		"data is gone":          func(m *mounted) error { return os.Remove(filepath.Join(m.path, "..data")) },
		"a key links to itself": func(m *mounted) error { return relink("a", filepath.Join(m.path, "..data", "a")) },
		"a key is a pipe": func(m *mounted) error {
			p := filepath.Join(m.path, "..data", "a")
			if err := os.Remove(p); err != nil {
				return err
			}
			return syscall.Mkfifo(p, 0o400)
		},
		"a key is a device": func(m *mounted) error { return relink("/dev/zero", filepath.Join(m.path, "..data", "a")) },
		"a mode changes":    func(m *mounted) error { return os.Chmod(filepath.Join(m.path, "..data", "a"), 0o444) },
		"two circles": func(m *mounted) error {
			if err := relink("y", filepath.Join(m.path, "..data", "x")); err != nil {
				return err
			}
			return relink("x", filepath.Join(m.path, "..data", "y"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := &mounted{t: t, path: t.TempDir()}
			m.swap(good, 0o400)
			var told []error
			f, err := keys.OpenFolder(m.path, &keys.FileOptions{CheckEvery: 1, OnError: func(err error) { told = append(told, err) }})
			must(t, err)
			must(t, spoil(m))
			for _, id := range []keys.ID{"a", "b"} {
				if k, err := f.GetKey(t.Context(), id); err != nil || k.Err() != nil {
					t.Errorf("the known key %s: %v, %v", id, k, err)
				}
			}
			if f.Err() == nil || len(told) == 0 {
				t.Errorf("Err: %v, told %v; want an error", f.Err(), told)
			}
			if _, err := keys.OpenFolder(m.path, nil); err == nil {
				t.Error("such a folder opens")
			}
			_ = os.Remove(filepath.Join(m.path, "..data"))
			m.swap(good, 0o400)
			if err := f.Err(); err != nil {
				t.Errorf("repaired: %v", err)
			}
		})
	}
}

// relink makes a symbolic link in the place of what is there.
func relink(to, path string) error {
	_ = os.Remove(path)
	return os.Symlink(to, path)
}
