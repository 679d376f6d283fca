package sqlitefile

import "syscall"

// blockSize is the size of the blocks that are counted.
func blockSize(fs *syscall.Statfs_t) int64 { return int64(fs.Bsize) }
