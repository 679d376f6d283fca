package deployment_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// units are the files of docs/deploy/systemd, with the program of each and the
// instance that stands for %i.
var units = []struct{ file, program, instance string }{
	{"webhook-router.service", "webhook-router", ""},
	{"bot@.service", "bot", "task-tactician"},
}

// TestUnits wants each unit to give its program the environment that it takes, and
// enough time to stop.
func TestUnits(t *testing.T) {
	t.Parallel()
	for _, u := range units {
		environ := map[string]string{}
		service := map[string]string{}
		for _, line := range strings.Split(strings.ReplaceAll(content(t, filepath.Join("systemd", u.file)), "%i", u.instance), "\n") {
			key, value, ok := strings.Cut(line, "=")
			switch {
			case !ok || strings.HasPrefix(line, "#"):
			case key == "Environment":
				name, v, _ := strings.Cut(value, "=")
				environ[name] = v
			default:
				service[key] = value
			}
		}
		if u.program == "webhook-router" {
			environ["WEBHOOK_SECRET"] = "a secret of sixteen bytes or more" // of EnvironmentFile
		}
		need := stopTime(t, u.program, environ)
		stop, err := time.ParseDuration(service["TimeoutStopSec"])
		if err != nil || stop < need {
			t.Errorf("%s: killed %s after SIGTERM (%v), and may take %s", u.file, stop, err, need)
		}
		if got, want := service["ExecStart"], "/usr/local/bin/"+u.program; got != want {
			t.Errorf("%s starts %q, want %q", u.file, got, want)
		}
		if user := service["User"]; user == "" || user == "root" {
			t.Errorf("%s runs as %q", u.file, user)
		}
	}
}

// TestSystemdAnalyze has systemd itself read the units. It wants programs to exist, so
// the units start this test here.
func TestSystemdAnalyze(t *testing.T) {
	t.Parallel()
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		if os.Getenv("QRT_REQUIRE_PEERS") == "1" {
			t.Fatal("systemd-analyze is not installed (Debian's package systemd): run make peers")
		}
		t.Skip("needs systemd-analyze (Debian's package systemd; make peers installs it)")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range units {
		text := strings.ReplaceAll(content(t, filepath.Join("systemd", u.file)), "/usr/local/bin/"+u.program, self)
		path := filepath.Join(t.TempDir(), u.file)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		// It complains on standard error about what systemd would ignore, and still
		// ends with 0.
		out, err := exec.CommandContext(t.Context(), analyze, "verify", "--man=no", path).CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", u.file, err, out)
		}
	}
}
