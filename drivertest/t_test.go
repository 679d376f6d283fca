package drivertest_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/queue-runtime/queue/drivertest"
)

// Run behaves as go test does.
func TestRun(t *testing.T) {
	var order []string
	var reports []drivertest.Report
	ok := drivertest.Run(context.Background(), func(t drivertest.T) {
		t.Logf("the suite %s", "speaks")
		passed := t.Run("passes", func(t drivertest.T) {
			t.Cleanup(func() { order = append(order, "first cleanup, last") })
			t.Cleanup(func() {
				if t.Context().Err() == nil {
					order = append(order, "context alive")
				}
				order = append(order, "last cleanup, first")
			})
			if t.Context().Err() != nil || t.Failed() || t.Name() != "passes" {
				t.Errorf("a case begins in a bad state")
			}
			order = append(order, "case")
		})
		if !passed || t.Failed() {
			t.Errorf("a case that passes fails")
		}
		t.Run("fails", func(t drivertest.T) {
			t.Errorf("once")
			t.Errorf("twice")
		})
		if !t.Failed() {
			order = append(order, "failure lost")
		}
		t.Run("ends", func(t drivertest.T) {
			defer func() { order = append(order, "deferred") }()
			t.Fatalf("fatal %d", 1)
			order = append(order, "went on")
		})
		t.Run("skips", func(t drivertest.T) {
			t.Skipf("for a reason")
			order = append(order, "went on")
		})
		t.Run("panics", func(drivertest.T) { panic("oh") })
		t.Run("fails in cleanup", func(t drivertest.T) {
			t.Cleanup(func() { t.Errorf("late") })
		})
	}, func(r drivertest.Report) { reports = append(reports, r) })
	if ok {
		t.Error("Run says that all passed")
	}
	if got, want := strings.Join(order, "; "), "case; last cleanup, first; first cleanup, last; deferred"; got != want {
		t.Errorf("order: %s; want %s", got, want)
	}
	want := []struct {
		name, line      string
		failed, skipped bool
	}{
		{"passes", "", false, false},
		{"fails", "once\ntwice", true, false},
		{"ends", "fatal 1", true, false},
		{"skips", "for a reason", false, true},
		{"panics", "panic: oh", true, false},
		{"fails in cleanup", "late", true, false},
		{"", "the suite speaks", true, false},
	}
	if len(reports) != len(want) {
		t.Fatalf("%d reports, want %d: %+v", len(reports), len(want), reports)
	}
	for i, w := range want {
		r := reports[i]
		if r.Name != w.name || r.Failed != w.failed || r.Skipped != w.skipped || !strings.HasPrefix(strings.Join(r.Lines, "\n"), w.line) {
			t.Errorf("report %d is %+v, want %+v", i, r, w)
		}
	}
	if !drivertest.Run(context.Background(), func(t drivertest.T) {
		t.Run("passes", func(drivertest.T) {})
	}, func(drivertest.Report) {}) {
		t.Error("Run of a suite that passes says that it failed")
	}
}

// When the context ends, so do the cases'.
func TestRunContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	drivertest.Run(ctx, func(s drivertest.T) {
		s.Run("case", func(s drivertest.T) {
			if s.Context().Err() == nil {
				t.Error("the context of a case outlives that of the run")
			}
		})
	}, func(drivertest.Report) {})
}

// NewIn runs each case inside of what it is given.
func TestNewIn(t *testing.T) {
	inside := 0
	suite := drivertest.NewIn(t, func(t *testing.T, f func(*testing.T)) {
		inside++
		synctest.Test(t, f)
	})
	ran := 0
	for range 2 {
		suite.Run("case", func(s drivertest.T) {
			ran++
			if !strings.HasPrefix(s.Name(), "TestNewIn/case") {
				t.Errorf("the name of the case is %q", s.Name())
			}
		})
	}
	if inside != 2 || ran != 2 {
		t.Errorf("%d of 2 cases ran, %d inside", ran, inside)
	}
}

// Harness.Only selects.
func TestOnly(t *testing.T) {
	cases := drivertest.Cases()
	if len(cases) < 80 {
		t.Fatalf("there are %d cases", len(cases))
	}
	h := faultyHarness(sound)
	h.Only = func(name string) bool { return name == cases[3] }
	var ran []string
	drivertest.Run(t.Context(), func(t drivertest.T) { drivertest.Conformance(t, h) }, func(r drivertest.Report) { ran = append(ran, r.Name) })
	if len(ran) != 1 || ran[0] != cases[3] {
		t.Errorf("%v ran, want %s", ran, cases[3])
	}
}
