//go:build race

package worker_test

// scale divides the work of the longest tests where the race detector slows them
// by ten. Without it they run whole.
const scale = 8
