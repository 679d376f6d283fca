package stream

import (
	"os"
	"syscall"
)

// wipeOnFork makes the kernel clear memory in the child of a fork, since Linux 4.14
// (madvise(2), MADV_WIPEONFORK).
const wipeOnFork = 18

// noAdvice is refused by every kernel that looks at what it is advised. An emulator that
// ignores all advice accepts it.
const noAdvice = -1

// clearedByFork returns memory whose first byte is 1, and 0 in the child of a fork; nil if
// there is none.
func clearedByFork() []byte {
	page, err := syscall.Mmap(-1, 0, os.Getpagesize(), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		return nil
	}
	if syscall.Madvise(page, noAdvice) == nil || syscall.Madvise(page, wipeOnFork) != nil {
		_ = syscall.Munmap(page) // it costs a page otherwise
		return nil
	}
	page[0] = 1
	return page
}
