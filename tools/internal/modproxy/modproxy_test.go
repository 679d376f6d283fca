package modproxy_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/module"

	"github.com/queue-runtime/queue/tools/internal/command"
	"github.com/queue-runtime/queue/tools/internal/modproxy"
)

// The go command takes modules from the proxy, finds the hashes that Add returned,
// and gets the licence of the root with a nested module.
func TestProxy(t *testing.T) {
	repo := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":        "module example.org/queue\n\ngo 1.26\n",
		"queue.go":      "package queue\n",
		"LICENSE":       "do as you like\n",
		".gitignore":    "ignored.go\n",
		"ignored.go":    "broken\n",
		"sub/go.mod":    "module example.org/queue/sub\n\ngo 1.26\n\nrequire example.org/queue v0.1.0\n",
		"sub/sub.go":    "package sub\n\nimport _ \"example.org/queue\"\n",
		"sub/x_test.go": "package sub\n",
	} {
		name = filepath.Join(repo, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	git := command.In{Dir: repo}
	output(t, git, "git", "init", "--quiet")
	output(t, git, "git", "add", "--all")
	tree := output(t, git, "git", "write-tree")

	p := modproxy.Proxy{Dir: t.TempDir()}
	day := time.Date(2026, 3, 4, 5, 6, 7, 0, time.FixedZone("", 3600))
	hashes := make(map[string]string)
	for path, dir := range map[string]string{"example.org/queue": "", "example.org/queue/sub": "sub"} {
		hash, err := p.Add(module.Version{Path: path, Version: "v0.1.0"}, modproxy.Source{Repository: repo, Tree: tree, Dir: dir, Time: day})
		if err != nil {
			t.Fatal(err)
		}
		hashes[path] = hash
	}

	in := command.In{Dir: t.TempDir(), Env: []string{
		"GOPROXY=" + p.URL(), "GONOSUMDB=example.org", "GOFLAGS=-modcacherw", "GOWORK=off", "GOMODCACHE=" + t.TempDir(), "GOENV=off",
	}}
	output(t, in, "go", "mod", "init", "example.org/user")
	if got := output(t, in, "go", "list", "-m", "-versions", "example.org/queue/sub"); got != "example.org/queue/sub v0.1.0" {
		t.Errorf("versions are %q", got)
	}
	for path, want := range hashes {
		var got struct{ Sum, Dir string }
		text := output(t, in, "go", "mod", "download", "-json", path+"@v0.1.0")
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Fatal(err)
		}
		if got.Sum != want || !strings.HasPrefix(want, "h1:") {
			t.Errorf("%s: the go command finds %s, Add said %s", path, got.Sum, want)
		}
		if license, err := os.ReadFile(filepath.Join(got.Dir, "LICENSE")); err != nil || string(license) != "do as you like\n" {
			t.Errorf("%s: licence %q, error %v", path, license, err)
		}
		if _, err := os.Stat(filepath.Join(got.Dir, "ignored.go")); err == nil {
			t.Errorf("%s holds a file that git ignores", path)
		}
	}
	output(t, in, "go", "get", "example.org/queue/sub@v0.1.0")
	if got := output(t, in, "go", "list", "-m", "-f", "{{.Time}}", "example.org/queue"); got != "2026-03-04 04:06:07 +0000 UTC" {
		t.Errorf("time is %s", got)
	}
}

func output(t *testing.T, in command.In, name string, args ...string) string {
	t.Helper()
	out, err := in.Output(t.Context(), name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
