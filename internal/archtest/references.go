package archtest

import (
	"fmt"
	"go/ast"
	"go/token"
	"io/fs"
	"regexp"
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
