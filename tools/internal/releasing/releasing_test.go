package releasing

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue/internal/archtest"
)

const changes = "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- One thing.\n\n## [0.1.0] - 2026-01-02\n\n- The first.\n"

func TestDatedChangelog(t *testing.T) {
	day := time.Date(2026, 3, 4, 23, 0, 0, 0, time.FixedZone("", -2*3600)) // the 5th in UTC
	got, err := datedChangelog(changes, "v0.2.0", day)
	if err != nil {
		t.Fatal(err)
	}
	want := "# Changelog\n\n## [Unreleased]\n\n## [0.2.0] - 2026-03-05\n\n### Added\n\n- One thing.\n\n## [0.1.0] - 2026-01-02\n\n- The first.\n"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	section, err := Section(got, "v0.2.0")
	if want := "### Added\n\n- One thing.\n"; err != nil || section != want {
		t.Errorf("section %q, error %v, want %q", section, err, want)
	}
	if _, err := Section(got, "v0.3.0"); err == nil {
		t.Error("a version without a section has one")
	}
}

func TestChangelogFaults(t *testing.T) {
	for _, c := range []struct{ name, text, version, want string }{
		{"released before", changes, "v0.1.0", "was it released"},
		{"nothing to release", "## [Unreleased]\n\n## [0.1.0] - 2026-01-02\n\n- The first.\n", "v0.2.0", "lists no change"},
		{"no section", "# Changelog\n\n- x\n", "v0.2.0", "no line"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := datedChangelog(c.text, c.version, time.Now())
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestCheckVersion(t *testing.T) {
	tags := []string{"v0.1.0", "sqlite/v0.1.0", "v0.1.2", "wip"}
	for _, c := range []struct{ version, want string }{
		{"v0.2.0", ""},
		{"v0.1.3-rc.1", ""},
		{"v0.0.9", ""}, // a correction of an older line
		{"v1.0.0", ""},
		{"v0.1.0", "exists"},
		{"v0.1.1", "older than the tag v0.1.2"},
		{"v0.0.0", "main branch"},
		{"v2.0.0", "path example.org/queue/v2"},
		{"0.2.0", "not a version"},
		{"v0.2", "not a version"},
		{"v0.2.0+build", "not a version"},
	} {
		err := checkVersion("example.org/queue", c.version, tags)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: error %v, want %q", c.version, err, c.want)
		}
	}
}

func TestPin(t *testing.T) {
	const before = "module example.org/queue/aws\n\ngo 1.26\n\nrequire (\n\texample.org/queue v0.0.0\n\texample.org/sdk v1.2.3\n)\n\nreplace example.org/queue => ../\n"
	siblings := map[string]bool{"example.org/queue": true, "example.org/queue/aws": true}
	for _, c := range []struct {
		dir     string
		replace bool // is kept
	}{{"aws", false}, {"examples", true}} {
		name := filepath.Join(t.TempDir(), "go.mod")
		if err := os.WriteFile(name, []byte(before), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := pin(name, &archtest.Module{Dir: c.dir}, siblings, "v0.2.0"); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		got := string(text)
		if !strings.Contains(got, "example.org/queue v0.2.0\n") || !strings.Contains(got, "example.org/sdk v1.2.3\n") {
			t.Errorf("%s: siblings are not pinned, or others changed:\n%s", c.dir, got)
		}
		if strings.Contains(got, "replace") != c.replace {
			t.Errorf("%s: replace lines are kept: %v, want %v:\n%s", c.dir, !c.replace, c.replace, got)
		}
	}
}

func TestTagOf(t *testing.T) {
	for dir, want := range map[string]string{".": "v0.1.0", "sqlite": "sqlite/v0.1.0", "cmd/qrt": "cmd/qrt/v0.1.0"} {
		if got := tagOf(dir, "v0.1.0"); got != want {
			t.Errorf("tag of %s is %s, want %s", dir, got, want)
		}
	}
}
