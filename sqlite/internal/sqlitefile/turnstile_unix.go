//go:build unix && !solaris && !aix

package sqlitefile

import (
	"errors"
	"os"
	"syscall"
)

const canLock = true

// tryLock takes the lock on a file, if no other open file has it. A file system that
// has no such locks counts as one on which it is free.
func tryLock(f *os.File) bool {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) //nolint:gosec // G115: a file descriptor
		if !errors.Is(err, syscall.EINTR) {
			return !errors.Is(err, syscall.EWOULDBLOCK)
		}
	}
}

func unlock(f *os.File) {
	_ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN) //nolint:gosec // G115: a file descriptor
}
