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

// T is what the suites need of a test. Its methods mean what those of
// *testing.T mean; Fatalf and Skipf do not return, and like Run they are called
// only from the goroutine of the test. A suite nests Run one level deep.
type T interface {
	Name() string
	Helper()
	Context() context.Context
	Cleanup(func())
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
	Failed() bool
	Run(name string, f func(T)) bool
}

// testingT is *testing.T, without an import of package testing into commands.
type testingT[X any] interface {
	Name() string
	Helper()
	Context() context.Context
	Cleanup(func())
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
	Failed() bool
	Run(name string, f func(X)) bool
}

// New returns t, a *testing.T, as a T.
func New[X testingT[X]](t X) T {
	return NewIn(t, func(t X, f func(X)) { f(t) })
}

// NewIn is New with each case run inside of in, such as synctest.Test.
func NewIn[X testingT[X]](t X, in func(t X, f func(X))) T {
	return adapter[X]{t, in}
}

type adapter[X testingT[X]] struct {
	testingT[X]
	in func(X, func(X))
}

// Run runs a case as a subtest.
func (a adapter[X]) Run(name string, f func(T)) bool {
	a.Helper()
	return a.testingT.Run(name, func(t X) {
		a.in(t, func(t X) { f(adapter[X]{t, a.in}) })
	})
}

// Report is the outcome of one case.
type Report struct {
	Name    string
	Elapsed time.Duration
	Failed  bool
	Skipped bool
	Lines   []string // what the case had to say, in order
}

// Run runs a suite outside of go test. report, called from the calling
// goroutine, gets each case when it ends, and, under the empty name, what the
// suite itself had to say, if anything. Run returns whether all passed. When ctx
// ends, cases fail.
func Run(ctx context.Context, suite func(T), report func(Report)) bool {
	r, _ := runCase(ctx, "", suite, report)
	if len(r.Lines) > 0 {
		report(r)
	}
	return !r.Failed
}

// runner is the T of Run.
type runner struct {
	ctx    context.Context
	report func(Report)

	mu       sync.Mutex // guards what follows
	r        Report
	cleanups []func()
}

// runCase runs f on a goroutine of its own, because Fatalf ends it, and returns
// when it and its cleanups have ended.
func runCase(ctx context.Context, name string, f func(T), report func(Report)) (Report, bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	begin := time.Now()
	t := &runner{ctx: ctx, report: report, r: Report{Name: name}}
	guarded := func(f func()) {
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
	guarded(func() { f(t) })
	cancel() // like testing.T.Context: over before the cleanups
	for {
		t.mu.Lock()
		n := len(t.cleanups)
		var c func()
		if n > 0 {
			c, t.cleanups = t.cleanups[n-1], t.cleanups[:n-1]
		}
		t.mu.Unlock()
		if c == nil {
			break
		}
		guarded(c)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.r.Elapsed = time.Since(begin)
	r := t.r
	r.Lines = slices.Clone(r.Lines)
	return r, !r.Failed
}

func (t *runner) Name() string             { return t.r.Name }
func (t *runner) Helper()                  {}
func (t *runner) Context() context.Context { return t.ctx }

func (t *runner) Cleanup(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cleanups = append(t.cleanups, f)
}

func (t *runner) Logf(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.r.Lines = append(t.r.Lines, fmt.Sprintf(format, args...))
}

func (t *runner) Errorf(format string, args ...any) {
	t.Logf(format, args...)
	t.fail()
}

func (t *runner) Fatalf(format string, args ...any) {
	t.Errorf(format, args...)
	runtime.Goexit()
}

func (t *runner) Skipf(format string, args ...any) {
	t.Logf(format, args...)
	t.mu.Lock()
	t.r.Skipped = true
	t.mu.Unlock()
	runtime.Goexit()
}

func (t *runner) Failed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.r.Failed
}

func (t *runner) fail() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.r.Failed = true
}

// Run runs a case and reports it.
func (t *runner) Run(name string, f func(T)) bool {
	r, ok := runCase(t.ctx, name, f, t.report)
	t.report(r)
	if !ok {
		t.fail()
	}
	return ok
}
