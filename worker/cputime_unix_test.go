//go:build unix

package worker_test

import (
	"syscall"
	"time"
)

// cpuTime is what this process has used of the processors: unlike a clock it does
// not count the time in which others had them.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
