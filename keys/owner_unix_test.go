//go:build unix

package keys_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/queue-runtime/queue/keys"
)

// TestUpdateFileOwner: root rotates the keys of a service, which must still be
// able to read them.
func TestUpdateFileOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away; others keep it by making it")
	}
	path := filepath.Join(t.TempDir(), "keys.json")
	write(t, path, document("a"))
	const service = 12345
	if err := os.Chown(path, service, -1); err != nil {
		t.Fatal(err)
	}
	k := mustKey(t, "b", 2)
	if err := keys.UpdateFile(path, func(s *keys.Set) error { s.Keys = append(s.Keys, k); return nil }); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || stat.Uid != service || info.Mode() != 0o600 {
		t.Errorf("owner %+v, mode %v", info.Sys(), info.Mode())
	}
}

// TestFilePipe: a pipe in the place of the file is refused, not waited for.
func TestFilePipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := keys.OpenFile(path, nil); err == nil {
		t.Error("a pipe was read")
	}
}

// TestFileThatCannotBeRead: a disk that fails is an outage, not a file without keys.
func TestFileThatCannotBeRead(t *testing.T) {
	const path = "/proc/self/mem" // a regular file of this process, whose first page there is not
	if _, err := os.Stat(path); err != nil {
		t.Skip("no file here that fails when it is read; TestReadWhole has the rule")
	}
	if _, err := keys.OpenFile(path, nil); !errors.Is(err, keys.ErrUnavailable) || errors.Is(err, keys.ErrInvalidKey) {
		t.Errorf("%v, want %v", err, keys.ErrUnavailable)
	}
}

// TestFileGroup: root's file is accepted if the process is in the group that may read it.
func TestFileGroup(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make files of root; TestFileAccess has the rule for other users")
	}
	path := filepath.Join(t.TempDir(), "keys.json")
	write(t, path, document("a"))
	const other = 12345
	for _, c := range []struct {
		uid, gid int
		accepted bool
	}{{0, os.Getegid(), true}, {0, other, false}, {other, os.Getegid(), false}} {
		if err := os.Chown(path, c.uid, c.gid); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o440); err != nil {
			t.Fatal(err)
		}
		_, err := keys.OpenFile(path, nil)
		if (err == nil) != c.accepted || err != nil && !errors.Is(err, keys.ErrUnavailable) {
			t.Errorf("0440 of %d:%d: %v; accepted: %t wanted", c.uid, c.gid, err, c.accepted)
		}
	}
	// A Pod's fsGroup is one of its further groups.
	if err := os.Chown(path, 0, other); err != nil {
		t.Fatal(err)
	}
	further, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setgroups([]int{other}); err != nil {
		t.Skipf("the process may not enter a group: %v", err)
	}
	_, opened := keys.OpenFile(path, nil)
	if err := syscall.Setgroups(further); err != nil {
		t.Fatal(err)
	}
	if opened != nil {
		t.Errorf("0440 of a further group: %v", opened)
	}
	if err := os.Chown(path, 0, os.Getegid()); err != nil {
		t.Fatal(err)
	}
	k := mustKey(t, "b", 2)
	if err := keys.UpdateFile(path, func(s *keys.Set) error { s.Keys = append(s.Keys, k); return nil }); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o440 {
		t.Errorf("after an update: %v, %v; want mode 0440", info, err)
	}
}

// TestFolderOwner: in a folder for all, another user's file is not taken for a key.
func TestFolderOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a"), text('a'))
	write(t, filepath.Join(dir, "b"), text('b'))
	if err := os.Chown(filepath.Join(dir, "b"), 12345, -1); err != nil {
		t.Fatal(err)
	}
	if _, err := keys.OpenFolder(dir, nil); !errors.Is(err, keys.ErrUnavailable) {
		t.Errorf("another user's file: %v", err)
	}
	if err := os.Chown(dir, 12345, -1); err != nil {
		t.Fatal(err)
	}
	if _, err := keys.OpenFolder(dir, nil); err != nil {
		t.Errorf("the files of a service, read by root: %v", err)
	}
}
