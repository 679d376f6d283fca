//go:build unix

package keys

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// A folder that cannot be synced is told of although the new file is in its place: a power cut
// may bring the old one back. Here no descriptor is left to open the folder with.
func TestReplaceTellsOfAFolderThatIsNotSynced(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "keys.json")
	f, err := os.Create(target + ".lock")
	if err != nil {
		t.Fatal(err)
	}
	withoutDescriptors(t, func() {
		replaced, err := replace(f, []byte("new"), target, nil)
		if !replaced || !errors.Is(err, syscall.EMFILE) {
			t.Errorf("replace = %t, %v; want that it is replaced, and %v", replaced, err, syscall.EMFILE)
		}
	})
	if b, err := os.ReadFile(target); string(b) != "new" || err != nil {
		t.Errorf("the file holds %q, %v", b, err)
	}
}

// A new file that could not be written or synced does not take the place of the
// old one: a full disk would take the keys along.
func TestReplaceKeepsTheOldFile(t *testing.T) {
	for what, open := range map[string]func(path string) (*os.File, error){
		"write fails": func(path string) (*os.File, error) {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				return nil, err
			}
			return os.Open(path) // for reading only
		},
		"sync fails": func(path string) (*os.File, error) {
			if err := syscall.Mkfifo(path, 0o600); err != nil {
				return nil, err
			}
			return os.OpenFile(path, os.O_RDWR, 0) // a pipe cannot be synced
		},
		"it is closed": func(path string) (*os.File, error) {
			f, err := os.Create(path)
			if err == nil {
				err = f.Close()
			}
			return f, err
		},
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			target := filepath.Join(dir, "keys.json")
			if err := os.WriteFile(target, []byte("old"), 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := open(target + ".lock")
			if err != nil {
				t.Fatal(err)
			}
			if replaced, err := replace(f, []byte("new"), target, nil); replaced || err == nil {
				t.Errorf("replace = %t, %v; want an error", replaced, err)
			}
			info, err := os.Lstat(target)
			if err != nil || !info.Mode().IsRegular() {
				t.Fatalf("the old file: %v, %v", info, err)
			}
			if b, err := os.ReadFile(target); string(b) != "old" || err != nil {
				t.Errorf("the old file holds %q, %v", b, err)
			}
		})
	}
}
