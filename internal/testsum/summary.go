package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// event is one line of "go test -json" (go doc test2json). Lines of a build
// carry ImportPath, those of a test Package.
type event struct {
	Action      string
	Package     string
	ImportPath  string
	Test        string
	Output      string
	FailedBuild string
}

// test names one test of one package; its name is empty for what a package
// prints outside of any test.
type test struct{ pkg, name string }

type summary struct {
	out                     io.Writer
	passed, failed, skipped int
	output                  map[test][]string
	build                   map[string][]string // import path of the failed build: its output
	broken                  map[string]int      // package: tests of it that failed
	running                 map[test]bool
}

func newSummary(out io.Writer) *summary {
	return &summary{
		out:     out,
		output:  make(map[test][]string),
		build:   make(map[string][]string),
		broken:  make(map[string]int),
		running: make(map[test]bool),
	}
}

// read takes in events until in ends. A line that is no event is passed
// through: the go command prints some errors as plain text.
func (s *summary) read(in io.Reader) error {
	r := bufio.NewReader(in)
	for {
		line, err := r.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if line[0] != '{' || json.Unmarshal(line, &e) != nil {
				fmt.Fprintln(s.out, strings.TrimRight(string(line), "\n"))
			} else {
				s.add(&e)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read events: %w", err)
		}
	}
}

func (s *summary) add(e *event) {
	t := test{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		s.build[e.ImportPath] = append(s.build[e.ImportPath], e.Output)
	case "output":
		s.output[t] = append(s.output[t], e.Output)
	case "run":
		s.running[t] = true
	case "pass", "fail", "skip":
		delete(s.running, t)
		if e.Test == "" {
			s.endPackage(e)
			return
		}
		s.endTest(e.Action, t)
	}
}

func (s *summary) endTest(action string, t test) {
	switch action {
	case "pass":
		s.passed++
	case "fail":
		s.failed++
		s.broken[t.pkg]++
		fmt.Fprint(s.out, strings.Join(s.output[t], ""))
	case "skip":
		s.skipped++
		fmt.Fprint(s.out, strings.Join(s.output[t], ""))
	}
	delete(s.output, t)
}

// endPackage prints the closing line of a package. What else a package printed
// is shown only if it failed.
func (s *summary) endPackage(e *event) {
	t := test{e.Package, ""}
	lines := s.output[t]
	delete(s.output, t)
	if e.Action != "fail" {
		if n := len(lines); n > 0 {
			fmt.Fprint(s.out, lines[n-1])
		}
		return
	}
	fmt.Fprint(s.out, strings.Join(s.build[e.FailedBuild], ""))
	// A test that was still running when its process ended (a panic, a
	// time-out, an exit) never reports an end of its own.
	for _, u := range s.unfinished(e.Package) {
		fmt.Fprint(s.out, strings.Join(s.output[u], ""))
		fmt.Fprintf(s.out, "--- FAIL: %s (did not finish)\n", u.name)
		delete(s.output, u)
		delete(s.running, u)
		s.failed++
		s.broken[e.Package]++
	}
	fmt.Fprint(s.out, strings.Join(lines, ""))
	if s.broken[e.Package] == 0 {
		s.failed++
	}
}

func (s *summary) unfinished(pkg string) []test {
	var tests []test
	for t := range s.running {
		if t.pkg == pkg {
			tests = append(tests, t)
		}
	}
	slices.SortFunc(tests, func(a, b test) int { return strings.Compare(a.name, b.name) })
	return tests
}

// close prints the count and reports whether the run shows that all is well.
func (s *summary) close() bool {
	fmt.Fprintf(s.out, "\n%d passed, %d failed, %d skipped\n", s.passed, s.failed, s.skipped)
	return s.failed == 0 && s.passed > 0
}
