package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/iotest"
)

// The events are those that "go test -json" prints, without their times.
const (
	passing = `{"Action":"start","Package":"m/a"}
{"Action":"run","Package":"m/a","Test":"TestA"}
{"Action":"output","Package":"m/a","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"run","Package":"m/a","Test":"TestA/s"}
{"Action":"output","Package":"m/a","Test":"TestA/s","Output":"chatter\n"}
{"Action":"pass","Package":"m/a","Test":"TestA/s"}
{"Action":"pass","Package":"m/a","Test":"TestA"}
{"Action":"output","Package":"m/a","Output":"PASS\n"}
{"Action":"output","Package":"m/a","Output":"ok  \tm/a\t0.018s\n"}
{"Action":"pass","Package":"m/a"}
`
	skipping = `{"Action":"run","Package":"m/b","Test":"TestB"}
{"Action":"output","Package":"m/b","Test":"TestB","Output":"    b_test.go:3: no peer\n"}
{"Action":"skip","Package":"m/b","Test":"TestB"}
{"Action":"output","Package":"m/b","Output":"ok  \tm/b\t0.010s\n"}
{"Action":"pass","Package":"m/b"}
`
	failing = `{"Action":"run","Package":"m/c","Test":"TestC"}
{"Action":"output","Package":"m/c","Test":"TestC","Output":"    c_test.go:3: boo\n"}
{"Action":"fail","Package":"m/c","Test":"TestC"}
{"Action":"output","Package":"m/c","Output":"FAIL\tm/c\t0.010s\n"}
{"Action":"fail","Package":"m/c"}
`
	unbuilt = `{"ImportPath":"m/d [m/d.test]","Action":"build-output","Output":"d.go:3:27: undefined: x\n"}
{"ImportPath":"m/d [m/d.test]","Action":"build-fail"}
{"Action":"output","Package":"m/d","Output":"FAIL\tm/d [build failed]\n"}
{"Action":"fail","Package":"m/d","FailedBuild":"m/d [m/d.test]"}
`
	exited = `{"Action":"run","Package":"m/e","Test":"TestE"}
{"Action":"output","Package":"m/e","Test":"TestE","Output":"last words\n"}
{"Action":"output","Package":"m/e","Output":"exit status 3\n"}
{"Action":"output","Package":"m/e","Output":"FAIL\tm/e\t0.010s\n"}
{"Action":"fail","Package":"m/e"}
`
	outside = `{"Action":"output","Package":"m/f","Output":"testing: race detected outside of test execution\n"}
{"Action":"output","Package":"m/f","Output":"FAIL\tm/f\t0.010s\n"}
{"Action":"fail","Package":"m/f"}
`
	untested = `{"Action":"output","Package":"m/g","Output":"?   \tm/g\t[no test files]\n"}
{"Action":"skip","Package":"m/g"}
`
)

func TestSummary(t *testing.T) {
	for _, c := range []struct {
		name, events, count string
		code                int
		shown, hidden       string
	}{
		{"passing", passing, "2 passed, 0 failed, 0 skipped", 0, "ok  \tm/a\t0.018s\n", "chatter"},
		{"skipping", passing + skipping, "2 passed, 0 failed, 1 skipped", 0, "no peer", ""},
		{"failing", passing + failing, "2 passed, 1 failed, 0 skipped", 1, "c_test.go:3: boo", ""},
		{"unbuilt", passing + unbuilt, "2 passed, 1 failed, 0 skipped", 1, "undefined: x", ""},
		{"exited", passing + exited, "2 passed, 1 failed, 0 skipped", 1, "last words\n--- FAIL: TestE (did not finish)", ""},
		{"outside", passing + outside, "2 passed, 1 failed, 0 skipped", 1, "race detected outside", ""},
		{"untested", untested, "0 passed, 0 failed, 0 skipped", 1, "[no test files]", ""},
		{"only skips", skipping, "0 passed, 0 failed, 1 skipped", 1, "no peer", ""},
		{"nothing", "", "0 passed, 0 failed, 0 skipped", 1, "", ""},
		{"plain text", "go: no such package\n" + passing, "2 passed, 0 failed, 0 skipped", 0, "go: no such package\n", ""},
		{"no last newline", strings.TrimSuffix(passing, "\n"), "2 passed, 0 failed, 0 skipped", 0, "ok  \tm/a", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			if got := run(strings.NewReader(c.events), &out, &errs); got != c.code {
				t.Errorf("exit code %d, want %d", got, c.code)
			}
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			if got := lines[len(lines)-1]; got != c.count {
				t.Errorf("last line %q, want %q", got, c.count)
			}
			if !strings.Contains(out.String(), c.shown) {
				t.Errorf("output lacks %q:\n%s", c.shown, &out)
			}
			if c.hidden != "" && strings.Contains(out.String(), c.hidden) {
				t.Errorf("output of a passing test is shown:\n%s", &out)
			}
			if errs.Len() > 0 {
				t.Errorf("unexpected error output: %s", &errs)
			}
		})
	}
}

func TestReadError(t *testing.T) {
	var out, errs bytes.Buffer
	if got := run(iotest.ErrReader(errors.New("pipe broke")), &out, &errs); got != 1 {
		t.Errorf("exit code %d, want 1", got)
	}
	if !strings.Contains(errs.String(), "pipe broke") {
		t.Errorf("error output %q does not name the cause", &errs)
	}
}
