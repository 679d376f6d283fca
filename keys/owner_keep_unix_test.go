//go:build unix

package keys

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestReplacedFileKeepsItsOwner: the new file has the owner of the old one; its group and mode
// only if the group may read the old one.
func TestReplacedFileKeepsItsOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away; others keep it by making it")
	}
	me, group := os.Geteuid(), os.Getegid()
	for name, c := range map[string]struct {
		uid, gid int
		mode     os.FileMode
		wantGid  int
		wantMode os.FileMode
		folder   int // the group that files in the folder get, if it is another
	}{
		"its own":                   {me, group, 0o600, group, 0o600, 0},
		"read only":                 {me, group, 0o400, group, 0o600, 0},
		"a service's":               {12345, 12345, 0o600, group, 0o600, 0},
		"its own, a group's":        {me, 12345, 0o640, 12345, 0o640, 0},
		"a service's and a group's": {12345, 23456, 0o440, 23456, 0o440, 0},
		"in a folder of another":    {me, group, 0o640, group, 0o640, 12345},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "old")
		for _, err := range []error{os.WriteFile(path, nil, 0o600), os.Chown(path, c.uid, c.gid), os.Chmod(path, c.mode)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		old, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if c.folder != 0 {
			for _, err := range []error{os.Chown(dir, -1, c.folder), os.Chmod(dir, 0o700|os.ModeSetgid)} {
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		f, err := os.OpenFile(filepath.Join(dir, "new"), os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if err := keepOwner(f, nil); err != nil {
			t.Errorf("%s: nothing is replaced: %v", name, err)
		}
		if err := keepOwner(f, old); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		now, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if stat, ok := now.Sys().(*syscall.Stat_t); !ok || int(stat.Uid) != c.uid || int(stat.Gid) != c.wantGid || now.Mode().Perm() != c.wantMode {
			t.Errorf("%s: %+v, mode %04o; want %d:%d, %04o", name, stat, now.Mode().Perm(), c.uid, c.wantGid, c.wantMode)
		}
		if uid, known := ownerOf(now); !known || uid != c.uid {
			t.Errorf("%s: the owner is %d, known %v", name, uid, known)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if err := keepOwner(f, old); err == nil && (c.uid != me || c.mode&0o040 != 0) {
			t.Errorf("%s: no error although the file is closed", name)
		}
	}
}
