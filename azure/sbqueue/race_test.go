//go:build race

package sbqueue_test

import "time"

const (
	// scale divides the work of the long tests where the race detector slows
	// both ends. Without it they run whole.
	scale = 10
	// slack is what a busy machine may add to a bound in time.
	slack = 2 * time.Second
)
