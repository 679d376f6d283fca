//go:build !unix

package worker_test

import "time"

var started = time.Now()

// cpuTime is a clock where what a process uses is not to be had.
func cpuTime() time.Duration { return time.Since(started) }
