package archtest

import (
	"fmt"
	"go/ast"
	"go/token"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// reference finds the name of a document in Go code, and the heading that may follow
// in quotes, as in: DESIGN.md, "Receiving".
var reference = regexp.MustCompile(`\b((?:docs/[\w./-]+|DESIGN|README|CONTRIBUTING|SECURITY|CHANGELOG)\.md)(?:,\s+"([^"]+)")?`)

// checkReferences wants each document that a comment names, or a string of a file that
// is no test, to exist, and to have the heading that is named with it.
func checkReferences(t *Tree) []Violation {
	var list []Violation
	look := func(f *File, p token.Pos, text string) {
		if !strings.Contains(text, ".md") { // most texts name none, and the search is slow
			return
		}
		for _, m := range reference.FindAllStringSubmatch(text, -1) {
			if reason := unknown(t.FS, m[1], strings.Join(strings.Fields(m[2]), " ")); reason != "" {
				list = append(list, Violation{f.Path, t.line(p), fmt.Sprintf("names %s: %s", m[1], reason)})
			}
		}
	}
	for _, f := range t.Files {
		for _, group := range f.Syntax.Comments {
			look(f, group.Pos(), group.Text())
		}
		if f.Test {
			continue
		}
		ast.Inspect(f.Syntax, func(n ast.Node) bool {
			if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
				if text, err := strconv.Unquote(l.Value); err == nil {
					look(f, l.Pos(), text)
				}
			}
			return true
		})
	}
	return sorted(list)
}

// testName finds the name of a test in a code span; with a star it is the beginning of
// several names.
var testName = regexp.MustCompile("`((?:Test|Benchmark|Fuzz|Example)[A-Z_]\\w*)(\\*?)`")

// changelog is the one document that speaks of the past.
const changelog = "CHANGELOG.md"

// checkTestNames wants each test that a document names to exist.
func checkTestNames(t *Tree) []Violation {
	var names []string
	for _, f := range t.Files {
		for _, d := range f.Syntax.Decls {
			if d, ok := d.(*ast.FuncDecl); ok && f.Test {
				names = append(names, d.Name.Name)
			}
		}
	}
	var list []Violation
	_ = walk(t.FS, func(name string) error { // Load has just read the same folders
		if path.Ext(name) != ".md" || name == changelog {
			return nil
		}
		src, err := fs.ReadFile(t.FS, name)
		if err != nil {
			return err
		}
		for i, l := range prose(string(src)) {
			for _, m := range testName.FindAllStringSubmatch(l, -1) {
				if !slices.ContainsFunc(names, func(n string) bool { return n == m[1] || m[2] != "" && strings.HasPrefix(n, m[1]) }) {
					list = append(list, Violation{name, i + 1, fmt.Sprintf("names %s%s, and there is no such test; correct it", m[1], m[2])})
				}
			}
		}
		return nil
	})
	return sorted(list)
}

// unknown says what is wrong with a reference to a document and a heading, which may
// be "", and "" if nothing is.
func unknown(fsys fs.FS, name, title string) string {
	src, err := fs.ReadFile(fsys, name)
	switch {
	case err != nil:
		return "there is no such document; correct the path"
	case title == "":
		return ""
	}
	for _, l := range prose(string(src)) {
		text, ok := heading(l)
		if ok && text == title || strings.HasPrefix(l, "**"+title) {
			return ""
		}
	}
	return fmt.Sprintf("it has no heading %q; correct it", title)
}
