//go:build unix

package keys

import (
	"io/fs"
	"os"
	"syscall"
)

// checkAccess refuses a file to which the rule does not allow the access that its mode
// gives.
func checkAccess(info fs.FileInfo, rule accessRule) error {
	a := fileAccess{mode: info.Mode(), uid: -1, gid: -1}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		a.uid, a.gid = int(stat.Uid), int(stat.Gid)
	}
	groups, _ := os.Getgroups() // without them there is the one below
	a.groups = append(groups, os.Getegid())
	return a.check(rule)
}

// ownerOf is the user ID of the owner of a file.
func ownerOf(info fs.FileInfo) (uid int, known bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(stat.Uid), true
}

// keepOwner gives f the owner of the file that it replaces: else the service
// could not read what root has changed for it. If the group may read the old file,
// f gets that group and mode, too.
func keepOwner(f *os.File, old fs.FileInfo) error {
	if old == nil {
		return nil
	}
	stat, ok := old.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	uid, gid := -1, -1
	if int(stat.Uid) != os.Geteuid() {
		uid = int(stat.Uid)
	}
	mode := old.Mode().Perm()
	if mode&0o040 != 0 {
		gid = int(stat.Gid)
	}
	if uid >= 0 || gid >= 0 {
		if err := f.Chown(uid, gid); err != nil {
			return err
		}
	}
	if gid >= 0 {
		return f.Chmod(mode)
	}
	return nil
}
