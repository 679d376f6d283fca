//go:build race

package sbqueue_test

import "time"

const (
	// scale divides the work of the long tests where the race detector slows
	// both ends. Without it they run whole.
	scale = 10
	// slack is what a busy machine may add to a bound in time.
	slack = 2 * time.Second
	// handlerLock is a lock that a handler of so many keeps. It is long, so that a busy
	// machine renews it in time.
	handlerLock  = 8 * time.Second
	handlerLocks = 4

	// oneWay is half of the round trip of tests that compare rates, long beside what the
	// detector costs. sideways and sharing are how many receivers and goroutines they have.
	oneWay   = 60 * time.Millisecond
	sideways = 3
	sharing  = 6
)
