//go:build race

package sbqueue_test

import "time"

const (
	// scale divides the work of the long tests where the race detector slows
	// both ends. Without it they run whole.
	scale = 10
	// slack is what a busy machine may add to a bound in time.
	slack = 2 * time.Second

	// oneWay is half of the round trip of tests that compare rates, long beside what the
	// detector costs. sideways and sharing are how many receivers and goroutines they have.
	oneWay   = 60 * time.Millisecond
	sideways = 3
	sharing  = 6
)
