//go:build unix

package measure

import (
	"syscall"
	"time"
)

// Switches returns how often threads of this process went to sleep.
func Switches() int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return int64(u.Nvcsw) //nolint:unconvert // another size on 32 bits
}

// cpuTime is the time that processors have spent in this process.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
