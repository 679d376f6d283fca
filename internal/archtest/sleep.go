package archtest

import (
	"go/ast"
	"maps"
	"slices"
	"strings"
)

const synctest = "testing/synctest"

// checkSleep finds tests that wait for real time to pass. Inside a bubble of
// testing/synctest time is fake and time.Sleep is the way to move it. So a
// function may sleep that uses synctest itself, is handed to synctest.Test,
// calls a function of its package that starts a bubble, or is called by such a
// function. This goes by the names of functions and methods within the tests of
// one package; it does not follow values. Therefore everything but the tests
// themselves may sleep in a file that has bubbles: it is a fake, most likely.
//
// What has to take real time, such as the moment at which a test kills another
// process, says why in a comment on the line or the one above: "real time: ...".
func checkSleep(t *Tree) []Violation {
	tests := make(map[string][]*File)
	for _, f := range t.Files {
		if f.Test {
			tests[f.Dir] = append(tests[f.Dir], f)
		}
	}
	var list []Violation
	for _, files := range tests {
		fake := bubbled(t, files)
		for _, f := range files {
			name := t.importName(f, "time")
			if name == "" {
				continue
			}
			benign, excused := hasBubbles(t, f), excuses(t, f)
			for _, d := range f.Syntax.Decls {
				fn, ok := d.(*ast.FuncDecl)
				if ok && fake[fn.Name.Name] || benign && (!ok || !entry(fn)) {
					continue
				}
				ast.Inspect(d, func(n ast.Node) bool {
					if selected(n, name) != "Sleep" {
						return true
					}
					if line := t.line(n.Pos()); !excused[line] && !excused[line-1] {
						list = append(list, Violation{f.Path, line, "sleeps: put the test into a bubble of testing/synctest, or wait for the event itself"})
					}
					return true
				})
			}
		}
	}
	return sorted(list)
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

// entry reports whether package testing calls fn.
func entry(fn *ast.FuncDecl) bool {
	return fn.Recv == nil && slices.ContainsFunc([]string{"Test", "Benchmark", "Fuzz", "Example"}, func(p string) bool {
		return strings.HasPrefix(fn.Name.Name, p)
	})
}

// hasBubbles reports whether f uses synctest, itself or through keytest.
func hasBubbles(t *Tree, f *File) bool {
	found := t.importName(f, synctest) != ""
	ast.Inspect(f.Syntax, func(n ast.Node) bool {
		found = found || asksForBubble(n)
		return !found
	})
	return found
}

// asksForBubble recognises the field by which keytest is told to run each test
// in a bubble.
func asksForBubble(n ast.Node) bool {
	kv, ok := n.(*ast.KeyValueExpr)
	if !ok {
		return false
	}
	key, _ := kv.Key.(*ast.Ident)
	value, _ := kv.Value.(*ast.Ident)
	return key != nil && value != nil && key.Name == "Bubble" && value.Name == "true"
}

// function is what a function in a test file has to do with bubbles.
type function struct {
	uses   bool // it names something of package synctest
	starts bool // it calls synctest.Test, or keytest with bubbles
	calls  map[string]bool
}

// bubbled returns the names of the functions in the test files of one package
// that run in a bubble or start one.
func bubbled(t *Tree, files []*File) map[string]bool {
	functions := make(map[string]function)
	handed := make(map[string]bool)
	for _, f := range files {
		name := t.importName(f, synctest)
		for _, d := range f.Syntax.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok {
				// Methods of one name share an entry.
				g, was := describe(fn, name, handed), functions[fn.Name.Name]
				maps.Copy(g.calls, was.calls)
				functions[fn.Name.Name] = function{g.uses || was.uses, g.starts || was.starts, g.calls}
			}
		}
	}
	fake := make(map[string]bool)
	var add func(name string)
	add = func(name string) {
		if fn, ok := functions[name]; ok && !fake[name] {
			fake[name] = true
			for callee := range fn.calls {
				add(callee)
			}
		}
	}
	for name, fn := range functions {
		if fn.uses || handed[name] {
			add(name)
		}
		for callee := range fn.calls {
			if functions[callee].starts {
				add(name)
			}
		}
	}
	return fake
}

// describe reads one function. synctest is the name of that package in its file,
// "" where it is not imported. Functions given to synctest.Test by name are added
// to handed.
func describe(fn *ast.FuncDecl, synctest string, handed map[string]bool) function {
	f := function{calls: make(map[string]bool)}
	ast.Inspect(fn, func(n ast.Node) bool {
		if synctest != "" && selected(n, synctest) != "" {
			f.uses = true
		}
		if asksForBubble(n) {
			f.uses, f.starts = true, true
		}
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		switch callee := call.Fun.(type) {
		case *ast.Ident:
			f.calls[callee.Name] = true
		case *ast.SelectorExpr:
			f.calls[callee.Sel.Name] = true
			if synctest == "" || selected(callee, synctest) != "Test" {
				return true
			}
			f.starts = true
			for _, arg := range call.Args {
				if id, ok := arg.(*ast.Ident); ok {
					handed[id.Name] = true
				}
			}
		}
		return true
	})
	return f
}
