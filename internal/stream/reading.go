package stream

import (
	"time"
)

// Reading is what Streams must know of the process and its clocks to find out that
// the process was suspended, copied, or restored from an image.
type Reading struct {
	Wall      int64         // Unix milliseconds; it opens streams
	Monotonic time.Duration // since any moment that stays the same in a process
	Process   int           // the process ID
}

// origin is what Reading.Monotonic counts from.
var origin = time.Now()

// Read returns the reading of this moment.
func Read() Reading { return ReadAt(time.Now()) }

// ReadAt returns the reading of now, which the caller has just read.
func ReadAt(now time.Time) Reading {
	return Reading{Wall: now.UnixMilli(), Monotonic: now.Sub(origin), Process: self().current()}
}

const (
	// maxDrift is how far wall and monotonic clock may move apart between two
	// uses: more than a clock is slewed by, less than an operator takes to restore
	// an image.
	maxDrift = 5 * time.Second
	// maxIdle is how long a stream may rest: an image of a process is rarely
	// restored sooner, and receivers forget streams that rest.
	maxIdle = 24 * time.Hour
)

// broken reports whether a stream that was used at last must not be used at now.
func (last Reading) broken(now Reading) bool {
	if last.Process != now.Process {
		return true
	}
	wall := time.Duration(now.Wall-last.Wall) * time.Millisecond
	passed := now.Monotonic - last.Monotonic
	return wall-passed > maxDrift || passed-wall > maxDrift || passed > maxIdle
}
