package cli_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/queue-runtime/queue/testbed/script"
)

// TestTerminalSession runs the session of docs/terminal.md, command by command,
// and compares what each prints and how it ends. Times, sizes of files
// and paths are made alike on both sides.
func TestTerminalSession(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "docs", "terminal.md"))
	if err != nil {
		t.Fatal(err)
	}
	steps := session(string(doc))
	if len(steps) < 20 {
		t.Fatalf("%d commands found: the session is gone, or has another form", len(steps))
	}
	sh := newShell(t)
	for _, s := range steps {
		got := sh.run(s.command)
		if alike(got) != alike(s.output) {
			t.Fatalf("line %d: $ %s\nprinted:\n%s\nthe document has:\n%s", s.line, s.command, got, s.output)
		}
	}
}

// step is a command of a session and what it prints. An exit code that is not 0
// is the last line, in brackets.
type step struct {
	line    int
	command string
	output  string
}

// session finds the commands in the console blocks of a document.
func session(doc string) []step {
	var steps []step
	inside := false
	line := 0
	for text := range strings.SplitSeq(doc, "\n") {
		line++
		switch {
		case text == "```console":
			inside = true
		case text == "```":
			inside = false
		case !inside:
		case strings.HasPrefix(text, "$ "):
			steps = append(steps, step{line, text[2:], ""})
		case len(steps) > 0:
			steps[len(steps)-1].output += text + "\n"
		}
	}
	return steps
}

// shell runs commands as a user with a home of his own would.
type shell struct {
	t    *testing.T
	home string
	qrt  string // the program
	env  []string
}

func newShell(t *testing.T) *shell {
	t.Helper()
	root := t.TempDir()
	s := &shell{t: t, home: filepath.Join(root, "home")}
	bin := filepath.Join(root, "bin")
	for _, dir := range []string{s.home, bin} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s.qrt = filepath.Join(bin, "qrt")
	if err := os.Symlink(self, s.qrt); err != nil {
		t.Fatal(err)
	}
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); !strings.HasPrefix(name, "QRT_") && !strings.HasPrefix(name, "XDG_") && name != "HOME" && name != "PATH" {
			s.env = append(s.env, v)
		}
	}
	s.env = append(s.env, "HOME="+s.home, "GORACE="+script.RaceOptions(), "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	return s
}

// run runs a command and returns what it printed, standard output and error as
// on a terminal, and its exit code where that is not 0. What needs a program that
// not every machine has is done here: sqlite3 and jq.
func (s *shell) run(command string) string {
	s.t.Helper()
	if rest, ok := strings.CutPrefix(command, "sqlite3 ~/"); ok {
		path, statement, _ := strings.Cut(rest, " ")
		return s.sql(filepath.Join(s.home, path), strings.Trim(statement, `"`))
	}
	command, field, pick := strings.Cut(command, " | jq -r .")
	c := exec.CommandContext(s.t.Context(), "sh", "-c", command)
	c.Dir, c.Env = s.home, s.env
	out, err := c.CombinedOutput()
	text := string(out)
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		text += fmt.Sprintf("[exit %d]\n", exit.ExitCode())
	case err != nil:
		s.t.Fatal(err)
	}
	if pick {
		m := regexp.MustCompile(`"` + field + `":"([^"]*)"`).FindStringSubmatch(text)
		if m == nil {
			s.t.Fatalf("no %q in %s", field, text)
		}
		text = m[1] + "\n"
	}
	return strings.ReplaceAll(text, s.home, "~")
}

func (s *shell) sql(path, statement string) string {
	s.t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // the statement has told
	if _, err := db.ExecContext(context.Background(), statement); err != nil {
		s.t.Fatal(err)
	}
	return ""
}

var (
	spans   = regexp.MustCompile(` *\b(now|[0-9.]+ (ns|µs|ms|s|KiB|MiB))( ago)?\b`)
	rules   = regexp.MustCompile(`(?m)^  ─+$`)
	numbers = regexp.MustCompile(`(?m)  +`)
)

// alike takes out what differs from one run to the next: times, sizes of files,
// and the width of columns that hold them.
func alike(text string) string {
	text = spans.ReplaceAllString(text, " SPAN")
	text = rules.ReplaceAllString(text, "  ─")
	return numbers.ReplaceAllString(text, "  ")
}
