package cli

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	fence  = regexp.MustCompile("(?ms)^[ \t]*```(?:sh|console)\n(.*?)^[ \t]*```")
	span   = regexp.MustCompile("`(qrt [^`]+)`")
	invoke = regexp.MustCompile(`^(?:\$ )?(?:[A-Z_]+=\S+ )*(?:qrt|go run \S*cmd/qrt)(?: |$)`)
	parts  = regexp.MustCompile(`\s*(?:\|\||\||&&|;|\$\()\s*`)
)

// TestPagesNameCommands wants each qrt command in the documents to exist, with its
// flags.
func TestPagesNameCommands(t *testing.T) {
	root := filepath.Join("..", "..", "..", "..")
	found := 0
	for _, page := range pages(t, root) {
		text, err := os.ReadFile(filepath.Join(root, page))
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, m := range fence.FindAllStringSubmatch(string(text), -1) {
			lines = append(lines, strings.Split(strings.ReplaceAll(m[1], "\\\n", " "), "\n")...)
		}
		for _, m := range span.FindAllStringSubmatch(string(text), -1) {
			lines = append(lines, m[1])
		}
		for _, line := range lines {
			line, _, _ = strings.Cut(strings.TrimSpace(line), " #")
			for _, command := range parts.Split(line, -1) {
				if !invoke.MatchString(command) {
					continue
				}
				found++
				if problem := wrong(arguments(invoke.ReplaceAllString(command, ""))); problem != "" {
					t.Errorf("%s: %s: %s", page, command, problem)
				}
			}
		}
	}
	if found < 100 {
		t.Errorf("%d commands found, want 100 at least: the documents have another form", found)
	}
}

// pages are the documents of the repository, relative to its root.
func pages(t *testing.T, root string) []string {
	t.Helper()
	list := []string{"README.md", "SECURITY.md", "examples/README.md"}
	err := fs.WalkDir(os.DirFS(root), "docs", func(name string, _ fs.DirEntry, err error) error {
		if filepath.Ext(name) == ".md" {
			list = append(list, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// arguments are the words of a command, without what the shell makes of redirections
// and quotes.
func arguments(command string) []string {
	var list []string
	for _, word := range strings.Fields(strings.NewReplacer(`"`, "", "'", "", ")", "").Replace(command)) {
		if strings.ContainsAny(word, "<>") {
			break
		}
		list = append(list, word)
	}
	return list
}

// wrong says what is wrong with the arguments of a command, which is not run.
func wrong(args []string) string {
	c, rest, err := new(app).root().Find(args)
	if err != nil {
		return err.Error()
	}
	if !c.HasParent() && len(args) > 0 && !strings.HasPrefix(args[0], "-") && args[0] != "help" && args[0] != "completion" {
		return "no such command"
	}
	if err := c.ParseFlags(rest); err != nil && !strings.Contains(err.Error(), "needs an argument") {
		return err.Error()
	}
	return ""
}
