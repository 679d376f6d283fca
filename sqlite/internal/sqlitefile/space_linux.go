package sqlitefile

import "syscall"

// blockSize is the size of the blocks that are counted: of a fragment (statvfs(3)). Bsize is what is
// best for a transfer, and on FUSE can be many times as large.
func blockSize(fs *syscall.Statfs_t) int64 {
	if fs.Frsize > 0 {
		return int64(fs.Frsize) //nolint:unconvert // of 32 bits on some systems
	}
	return int64(fs.Bsize) //nolint:unconvert // the same
}
