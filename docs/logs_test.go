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

var _ = warnOnly // logs.md shows it

func warnOnly(options *queue.Options) {
	options.Logger = slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// logged finds a log line in a row of a table of logs.md, with its level, and those of
// its section on INFO lines.
var logged = regexp.MustCompile("(?m)^\\| ([A-Z, ]+) \\| `([^`]+)` \\||`((?:Message|Receiving) [^`]+)`")

// TestLogLines wants each log line of logs.md to be one of the library's code, word by
// word, at its level. Lines whose level depends on something have several.
func TestLogLines(t *testing.T) {
	page, err := os.ReadFile("logs.md")
	if err != nil {
		t.Fatal(err)
	}
	found := logged.FindAllStringSubmatch(string(page), -1)
	if len(found) < 18 {
		t.Fatalf("%d log lines in logs.md, want 18 at least: the page has another form", len(found))
	}
	code := logLines(t, "..")
	for _, m := range found {
		line := strings.Join(strings.Fields(m[2]+m[3]), " ")
		level, ok := code[line]
		switch {
		case !ok:
			t.Errorf("logs.md has the line %q, which no Go file logs", line)
		case m[1] == "" && level != "INFO":
			t.Errorf("logs.md has %q at INFO, it is logged at %s", line, level)
		case m[1] != "" && level != "" && level != m[1]:
			t.Errorf("logs.md has %q at %s, it is logged at %s", line, m[1], level)
		}
	}
}

// logLines returns the texts that Go files of the root module other than tests log,
// with their levels; "" stands for a level that the code chooses.
func logLines(t *testing.T, root string) map[string]string {
	t.Helper()
	all := make(map[string]string)
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
			if call, ok := n.(*ast.CallExpr); ok {
				if text, level, ok := logCall(call); ok {
					all[text] = level
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

// logCall returns the text and the level of a call of LogAttrs, Warn or Error.
func logCall(call *ast.CallExpr) (text, level string, ok bool) {
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return "", "", false
	}
	at := 0
	switch method.Sel.Name {
	case "Warn", "Error":
		level = strings.ToUpper(method.Sel.Name)
	case "LogAttrs":
		at = 2
	default:
		return "", "", false
	}
	if len(call.Args) <= at {
		return "", "", false
	}
	if at > 0 {
		if s, ok := call.Args[1].(*ast.SelectorExpr); ok {
			level = strings.ToUpper(strings.TrimPrefix(s.Sel.Name, "Level"))
		}
	}
	literal, ok := call.Args[at].(*ast.BasicLit)
	if !ok {
		return "", "", false
	}
	text, err := strconv.Unquote(literal.Value)
	return text, level, err == nil
}
