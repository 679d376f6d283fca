package archtest

import (
	"go/ast"
	"path"
	"slices"
	"strings"
)

const synctest = "testing/synctest"

// fixtures is the package of the root module whose function Run starts a bubble.
const fixtures = "internal/fixturetest"

// checkSleep finds test files that wait for real time to pass. In a bubble of
// testing/synctest time is fake and time.Sleep is the way to move it, so a file may
// sleep if it has bubbles; no linter knows that. What has to take real time, such as
// the moment at which a test kills another process, says why in a comment on the line
// or the one above: "real time: ...". The linter forbidigo forbids sleeping outside
// of tests.
func checkSleep(t *Tree) []Violation {
	starters := bubbleStarters(t)
	var list []Violation
	for _, f := range t.Files {
		name := t.importName(f, "time")
		if !f.Test || name == "" || hasBubbles(t, f, starters[f.Dir]) {
			continue
		}
		excused := excuses(t, f)
		ast.Inspect(f.Syntax, func(n ast.Node) bool {
			if selected(n, name) != "Sleep" {
				return true
			}
			if line := t.line(n.Pos()); !excused[line] && !excused[line-1] {
				list = append(list, Violation{f.Path, line, "sleeps: put the test into a bubble of testing/synctest, or wait for the event itself"})
			}
			return true
		})
	}
	return sorted(list)
}

// bubbleStarters returns, for each folder, the functions of its tests that call
// synctest.Test or fixturetest.Run.
func bubbleStarters(t *Tree) map[string][]string {
	starters := make(map[string][]string)
	for _, f := range t.Files {
		bubble, fixture := t.importName(f, synctest), t.importName(f, path.Join(t.Root().Path, fixtures))
		if !f.Test || bubble == "" && fixture == "" {
			continue
		}
		for _, d := range f.Syntax.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			ast.Inspect(fn, func(n ast.Node) bool {
				if selected(n, bubble) == "Test" || selected(n, fixture) == "Run" {
					starters[f.Dir] = append(starters[f.Dir], fn.Name.Name)
				}
				return true
			})
		}
	}
	return starters
}

// excuses returns the last lines of the comments that say why real time passes.
func excuses(t *Tree, f *File) map[int]bool {
	lines := make(map[int]bool)
	for _, g := range f.Syntax.Comments {
		if _, reason, ok := strings.Cut(strings.ToLower(g.Text()), "real time:"); ok && strings.TrimSpace(reason) != "" {
			lines[t.line(g.End())] = true
		}
	}
	return lines
}

// hasBubbles reports whether f imports synctest, calls one of the starters of its
// folder, or sets the field by which keytest is told to run each test in a bubble.
func hasBubbles(t *Tree, f *File, starters []string) bool {
	found := t.importName(f, synctest) != ""
	ast.Inspect(f.Syntax, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			id, ok := n.Fun.(*ast.Ident)
			found = found || ok && slices.Contains(starters, id.Name)
		case *ast.KeyValueExpr:
			key, _ := n.Key.(*ast.Ident)
			value, _ := n.Value.(*ast.Ident)
			found = found || key != nil && value != nil && key.Name == "Bubble" && value.Name == "true"
		}
		return !found
	})
	return found
}

// selected returns Name if n is the expression pkg.Name, and "" otherwise.
func selected(n ast.Node, pkg string) string {
	s, ok := n.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	if id, ok := s.X.(*ast.Ident); !ok || id.Name != pkg {
		return ""
	}
	return s.Sel.Name
}
