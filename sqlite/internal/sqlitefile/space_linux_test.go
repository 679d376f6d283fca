package sqlitefile

import (
	"syscall"
	"testing"
)

// TestBlockSize: blocks are counted in fragments (statvfs(3)), which on FUSE are smaller than the
// size that is best for a transfer.
func TestBlockSize(t *testing.T) {
	for _, c := range []struct {
		fs   syscall.Statfs_t
		want int64
	}{
		{syscall.Statfs_t{Bsize: 4096, Frsize: 4096}, 4096},
		{syscall.Statfs_t{Bsize: 1 << 20, Frsize: 4096}, 4096},
		{syscall.Statfs_t{Bsize: 4096}, 4096}, // a system that tells of no fragments
	} {
		if got := blockSize(&c.fs); got != c.want {
			t.Errorf("transfers of %d, fragments of %d: blocks of %d, want %d", c.fs.Bsize, c.fs.Frsize, got, c.want)
		}
	}
}
