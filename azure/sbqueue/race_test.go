//go:build race

package sbqueue_test

// scale divides the work of the long tests where the race detector slows both
// ends. Without it they run whole.
const scale = 10
