package drivertest

import "context"

// T is the part of *testing.T that cases use. Its methods mean what the methods of
// *testing.T mean: Fatalf and Skipf do not return, and are called only from the
// goroutine that runs the case.
type T interface {
	Helper()
	Context() context.Context
	Cleanup(func())
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
}

// Case is one test. Run must be called with a T of its own, since it starts a
// broker that lives until the T's cleanups have run. Different cases may run at
// the same time if the harness allows it.
type Case struct {
	// Name is unique in its suite and consists of lower-case letters, digits and
	// underscores.
	Name string

	// Run performs the case and reports failures to t.
	Run func(t T)
}
