package cli

import (
	"strings"
	"testing"
)

// TestDisk: doctor says when sends to a SQLite file fail for the disk's sake, or soon will.
func TestDisk(t *testing.T) {
	const reserve = 32 << 20
	for _, c := range []struct {
		free int64
		want string // empty: no finding
	}{
		{reserve - 1, "error: 32.0 MiB are free on the disk of the file: sends fail,"},
		{reserve, "warning: 32.0 MiB are free on the disk of the file: sends fail below 32.0 MiB"},
		{4 * reserve, ""},
	} {
		x := &doctorRun{report: &doctorReport{}}
		x.disk(c.free, reserve)
		var got string
		for _, f := range x.report.Findings {
			got += string(f.Level) + ": " + f.Finding
			if f.Advice == "" {
				t.Errorf("%q says not what to do", f.Finding)
			}
		}
		if !strings.HasPrefix(got, c.want) || (c.want == "") != (got == "") {
			t.Errorf("%d bytes: %q, want %q", c.free, got, c.want)
		}
	}
}
