// Command testsum reads the events of "go test -json" on standard input and
// prints what a person wants of them: one line a package, the whole output of
// what failed, why a test was skipped, and at the end, alone on a line,
//
//	N passed, N failed, N skipped
//
// It counts tests and examples, a subtest as one and a test that only holds
// subtests too. A package that does not build, panics or fails outside of any
// test counts as one failure. It exits with 1 when something failed or when no
// test ran, since a run without tests shows nothing.
package main

import (
	"fmt"
	"io"
	"os"
)

func main() {
	os.Exit(run(os.Stdin, os.Stdout, os.Stderr))
}

func run(in io.Reader, out, errs io.Writer) int {
	s := newSummary(out)
	if err := s.read(in); err != nil {
		fmt.Fprintln(errs, "testsum:", err)
		return 1
	}
	if !s.close() {
		return 1
	}
	return 0
}
