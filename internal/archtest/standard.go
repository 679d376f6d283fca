package archtest

import (
	"fmt"
	"go/ast"
	"slices"
	"strings"
)

// checkNoRequire holds the claim that whoever imports the root module gets no
// other module with it.
func checkNoRequire(t *Tree) []Violation {
	var list []Violation
	root := t.Root()
	for _, r := range root.Require {
		list = append(list, Violation{root.File(), r.Line, fmt.Sprintf("requires %s: the root module has no requirements; put the code that needs it into a nested module", r.Path)})
	}
	for _, r := range root.Replace {
		list = append(list, Violation{root.File(), r.Line, fmt.Sprintf("replaces %s: the root module has nothing to replace; remove the line", r.Old)})
	}
	for _, d := range root.Other {
		if d.Verb == "retract" {
			continue
		}
		list = append(list, Violation{root.File(), d.Line, fmt.Sprintf("has a %s line: the root's go.mod names the module, the version of Go and retracted versions, and nothing else", d.Verb)})
	}
	return list
}

// checkStandardLibrary holds the same claim against the imports, those of the
// tests included, so that a workspace cannot hide a requirement.
func checkStandardLibrary(t *Tree) []Violation {
	var list []Violation
	for _, f := range t.Files {
		if f.Module != t.Root() {
			continue
		}
		for _, i := range t.imports(f) {
			if m, _, ok := t.resolve(i.Path); ok && m == t.Root() {
				continue
			}
			if i.Path == "C" || !standard(i.Path) {
				list = append(list, Violation{f.Path, i.Line, fmt.Sprintf("imports %s: the root module and its tests use the standard library only; put the code into a nested module", i.Path)})
			}
		}
	}
	return sorted(list)
}

// standard reports whether the path is one of the standard library's: its first
// element has no dot, which every other module path that can be fetched has
// (https://go.dev/ref/mod#module-path).
func standard(importPath string) bool {
	first, _, _ := strings.Cut(importPath, "/")
	return !strings.Contains(first, ".")
}

// Package envelope turns bytes into bytes. What would let it reach the outside
// world, or make its result depend on anything but its arguments and the
// system's random source, stays out.
var envelopeBanned = []string{"net", "os", "log", "math/rand", "io/ioutil", "syscall", "plugin"}

// clockFuncs are the functions of package time that read the clock or wait.
var clockFuncs = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick"}

func checkEnvelope(t *Tree) []Violation {
	var list []Violation
	for _, f := range t.Files {
		if f.Dir != "envelope" || f.Test {
			continue
		}
		for _, i := range t.imports(f) {
			for _, banned := range envelopeBanned {
				if _, in := within(i.Path, banned); in {
					list = append(list, Violation{f.Path, i.Line, fmt.Sprintf("imports %s: package envelope does no I/O, logs nothing and has one source of randomness, crypto/rand; let the caller pass what it needs", i.Path)})
				}
			}
		}
		name := t.importName(f, "time")
		if name == "" {
			continue
		}
		ast.Inspect(f.Syntax, func(n ast.Node) bool {
			if fn := selected(n, name); slices.Contains(clockFuncs, fn) {
				list = append(list, Violation{f.Path, t.line(n.Pos()), fmt.Sprintf("uses time.%s: package envelope keeps no clock; take the time as an argument", fn)})
			}
			return true
		})
	}
	return sorted(list)
}

// selected returns Name where n is the expression pkg.Name, and "" otherwise.
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

// suites are the packages outside of tests that may import package testing. It
// brings its flags into every program that it gets into; drivertest is not among
// them, because the command runs it.
var suites = []string{"keys/keytest", "replay/replaytest", "queuetest", "testbed/script"}

// checkTestingImport lets an internal package that only tests import have package
// testing, too: it gets into no program.
func checkTestingImport(t *Tree) []Violation {
	imported := make(map[string]bool) // folders that a program can get
	for _, f := range t.Files {
		for _, i := range t.imports(f) {
			if _, dir, ok := t.resolve(i.Path); ok && !f.Test {
				imported[dir] = true
			}
		}
	}
	var list []Violation
	for _, f := range t.Files {
		internal := slices.Contains(strings.Split(f.Dir, "/"), "internal")
		if f.Test || slices.Contains(suites, f.Dir) || internal && !imported[f.Dir] {
			continue
		}
		for _, i := range t.imports(f) {
			if _, in := within(i.Path, "testing"); in {
				list = append(list, Violation{f.Path, i.Line, fmt.Sprintf("imports %s outside of a test: take a small interface of your own instead of *testing.T, as drivertest does", i.Path)})
			}
		}
	}
	return sorted(list)
}
