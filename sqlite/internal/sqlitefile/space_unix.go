//go:build linux || darwin

package sqlitefile

import (
	"math"
	"syscall"
)

// diskSpace returns the bytes of the file system that holds path: those that this user may
// still write, and all.
func diskSpace(path string) (free, total int64, ok bool) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(path, &fs); err != nil {
		return 0, 0, false
	}
	bytes := func(blocks uint64) int64 {
		return int64(min(float64(blocks)*float64(blockSize(&fs)), math.MaxInt64/2))
	}
	return bytes(fs.Bavail), bytes(fs.Blocks), true
}
