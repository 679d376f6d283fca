package drivertest_test

import (
	"context"
	"regexp"
	"strings"
	"testing"

	"github.com/queue-runtime/queue/drivertest"
)

var _ drivertest.T = (*testing.T)(nil)

// Run does what go test does with a case.
func TestRun(t *testing.T) {
	for _, c := range []struct {
		name, lines     string
		failed, skipped bool
		run             func(drivertest.T)
	}{
		{name: "passes", lines: "a line", run: func(t drivertest.T) { t.Logf("a %s", "line") }},
		{name: "fails", lines: "once\ntwice", failed: true, run: func(t drivertest.T) {
			t.Errorf("once")
			t.Errorf("twice")
		}},
		{name: "ends", lines: "fatal 1\ndeferred", failed: true, run: func(t drivertest.T) {
			defer t.Logf("deferred")
			t.Fatalf("fatal %d", 1)
			t.Logf("Fatalf returned")
		}},
		{name: "skips", lines: "for a reason", skipped: true, run: func(t drivertest.T) {
			t.Skipf("for a reason")
			t.Logf("Skipf returned")
		}},
		{name: "panics", lines: "panic: oh", failed: true, run: func(drivertest.T) { panic("oh") }},
		{name: "cleans up", lines: "case\nlast\nadded by last\nfirst", run: func(t drivertest.T) {
			t.Cleanup(func() { t.Logf("first") })
			t.Cleanup(func() {
				if t.Context().Err() == nil {
					t.Errorf("the context outlives the case")
				}
				t.Logf("last")
				t.Cleanup(func() { t.Logf("added by last") })
			})
			if t.Context().Err() != nil {
				t.Errorf("the context ended before the case")
			}
			t.Logf("case")
		}},
		{name: "fails in cleanup", lines: "late\nfirst", failed: true, run: func(t drivertest.T) {
			t.Cleanup(func() { t.Logf("first") })
			t.Cleanup(func() { t.Fatalf("late") })
		}},
	} {
		r := drivertest.Run(t.Context(), drivertest.Case{Name: c.name, Run: c.run})
		lines := strings.Join(r.Lines, "\n")
		if c.name == "panics" {
			lines, _, _ = strings.Cut(lines, "\n") // a stack follows
		}
		if r.Name != c.name || r.Failed != c.failed || r.Skipped != c.skipped || lines != c.lines {
			t.Errorf("%s: report %+v, want failed %v, skipped %v, lines %q", c.name, r, c.failed, c.skipped, c.lines)
		}
	}
}

// TestRunContext: when the context ends, so does the case's.
func TestRunContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	drivertest.Run(ctx, drivertest.Case{Run: func(c drivertest.T) {
		if c.Context().Err() == nil {
			t.Error("the context of a case outlives that of Run")
		}
	}})
}

// TestCases: names are unique and of the promised form.
func TestCases(t *testing.T) {
	cases := drivertest.Cases(faultyHarness(func(*faulty) {}))
	if len(cases) < 80 {
		t.Errorf("there are %d cases, want at least 80", len(cases))
	}
	form := regexp.MustCompile(`^[a-z0-9_]+$`)
	seen := make(map[string]bool)
	for _, c := range cases {
		if !form.MatchString(c.Name) || seen[c.Name] {
			t.Errorf("the name %q is invalid or occurs twice", c.Name)
		}
		seen[c.Name] = true
	}
}
