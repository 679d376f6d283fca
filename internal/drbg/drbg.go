// Package drbg keeps tests that run in bubbles of testing/synctest supplied with
// random numbers under FIPS 140-3.
//
// There the generator of Go's cryptographic module seeds itself by measuring
// time (SP 800-90B), which stands still in a bubble, and panics. It keeps one
// instance for reads one after another and a pool for reads at the same time.
// A test that fills the pool before its first bubble, and keeps the garbage collector
// from emptying it, seeds no generator inside of a bubble.
package drbg

import (
	"crypto/fips140"
	"crypto/rand"
	"runtime/debug"
	"sync"
	"sync/atomic"
)

const (
	// instances is how many reads may be under way at once: far more than
	// there are processors, since a goroutine can be preempted within one.
	instances = 32
	// stretch is how many bytes a read fills: next to that, what a goroutine does between
	// two reads takes no time.
	stretch = 1 << 20
	// memory is from how many bytes on garbage is collected nonetheless.
	memory = 4 << 30
)

// Prime fills the generator's pool if FIPS 140-3 mode is on, which takes less than a
// second, and does nothing otherwise. It is for TestMain, before any test.
func Prime() {
	if !fips140.Enabled() {
		return
	}
	// The pool is a sync.Pool: collecting garbage empties it.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(memory)
	overlap(instances)
}

// overlap has n reads under way at once. A goroutine that makes room for another is within
// a read, and holds an instance, because it does nothing else until all have begun.
func overlap(n int) {
	var wg sync.WaitGroup
	var begun atomic.Int64
	for range n {
		wg.Go(func() {
			b := make([]byte, stretch)
			for begun.Add(1); ; {
				all := begun.Load() == int64(n)
				// crypto/rand.Read never fails: it ends the process instead.
				_, _ = rand.Read(b)
				if all {
					return
				}
			}
		})
	}
	wg.Wait()
}
