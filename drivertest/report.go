package drivertest

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// Report is the result of a case that [Run] ran.
type Report struct {
	Name    string        // of the case
	Elapsed time.Duration // including cleanups
	Failed  bool          // by Errorf, Fatalf or a panic
	Skipped bool          // by Skipf: the broker has not what the case needs
	Lines   []string      // messages of the case, in order
}

// Run runs a case outside of go test and returns when the case and its cleanups
// have ended. A panic of the case is a failure. The case's context ends with ctx,
// and before the cleanups run.
func Run(ctx context.Context, c Case) Report {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	begin := time.Now()
	t := &recorder{ctx: ctx}
	t.call(func() { c.Run(t) })
	cancel()
	for f := t.lastCleanup(); f != nil; f = t.lastCleanup() {
		t.call(f)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return Report{Name: c.Name, Elapsed: time.Since(begin), Failed: t.failed, Skipped: t.skipped, Lines: slices.Clone(t.lines)}
}

// recorder is the T of Run.
type recorder struct {
	ctx context.Context

	mu              sync.Mutex // guards what follows
	failed, skipped bool
	lines           []string
	cleanups        []func()
}

// call runs f on a goroutine of its own, which Fatalf and Skipf end, and waits for
// its end.
func (t *recorder) call(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				t.Errorf("panic: %v\n%s", p, debug.Stack())
			}
		}()
		f()
	}()
	<-done
}

// lastCleanup removes and returns the newest cleanup, or nil.
func (t *recorder) lastCleanup() func() {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(t.cleanups)
	if n == 0 {
		return nil
	}
	f := t.cleanups[n-1]
	t.cleanups = t.cleanups[:n-1]
	return f
}

func (t *recorder) Helper()                  {}
func (t *recorder) Context() context.Context { return t.ctx }

func (t *recorder) Cleanup(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cleanups = append(t.cleanups, f)
}

func (t *recorder) Logf(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = append(t.lines, fmt.Sprintf(format, args...))
}

func (t *recorder) Errorf(format string, args ...any) {
	t.Logf(format, args...)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed = true
}

func (t *recorder) Fatalf(format string, args ...any) {
	t.Errorf(format, args...)
	runtime.Goexit()
}

func (t *recorder) Skipf(format string, args ...any) {
	t.Logf(format, args...)
	t.mu.Lock()
	t.skipped = true
	t.mu.Unlock()
	runtime.Goexit()
}
