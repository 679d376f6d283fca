package sqlitefile

import (
	"fmt"
	"syscall"
)

// networked are the f_type values of file systems that several machines share
// (statfs(2), linux/magic.h). SQLite's log index is shared memory, which does
// not reach across machines, and their locks are not to be relied on.
var networked = map[int64]string{
	0x6969:     "NFS",
	0x517b:     "SMB",
	0xfe534d42: "SMB",
	0xff534d42: "CIFS",
	0x5346414f: "AFS",
	0x6b414653: "AFS",
	0x00c36400: "Ceph",
	0x0bd00bd0: "Lustre",
	0x01161970: "GFS2",
	0x7461636f: "OCFS2",
}

func refuseNetwork(path string) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(path, &fs); err != nil {
		return nil //nolint:nilerr // what cannot be asked is not known to be one
	}
	if name, ok := networked[int64(fs.Type)&0xffffffff]; ok { //nolint:unconvert // its type differs by architecture
		return fmt.Errorf("%q lies on a network file system (%s): SQLite cannot share a file there; use a local disk, or a broker with a server", path, name)
	}
	return nil
}
