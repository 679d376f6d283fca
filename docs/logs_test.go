package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/queue-runtime/queue"
)

func warnOnly(options *queue.Options) {
	options.Logger = slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// logged finds a log line in a row of a table of logs.md, and those of its section on
// INFO lines.
var logged = regexp.MustCompile("(?m)^\\| [A-Z, ]+ \\| `([^`]+)` \\||`((?:Message|Receiving) [^`]+)`")

// TestLogLines wants each log line of logs.md to be a string of the library's code,
// word by word.
func TestLogLines(t *testing.T) {
	page, err := os.ReadFile("logs.md")
	if err != nil {
		t.Fatal(err)
	}
	found := logged.FindAllStringSubmatch(string(page), -1)
	if len(found) < 18 {
		t.Fatalf("%d log lines in logs.md, want 18 at least: the page has another form", len(found))
	}
	code := literals(t, "..")
	for _, m := range found {
		line := strings.Join(strings.Fields(m[1]+m[2]), " ")
		if !code[line] {
			t.Errorf("logs.md has the line %q, which no Go file has", line)
		}
	}
}

// literals returns every string of the Go files of the root module other than tests.
func literals(t *testing.T, root string) map[string]bool {
	t.Helper()
	all := make(map[string]bool)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			_, err := os.Stat(filepath.Join(path, "go.mod"))
			if path != root && err == nil || len(d.Name()) > 2 && d.Name()[0] == '.' {
				return fs.SkipDir // another module, or what the go command ignores
			}
			return nil
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
				if s, err := strconv.Unquote(l.Value); err == nil {
					all[s] = true
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
