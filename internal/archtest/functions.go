package archtest

import (
	"fmt"
	"go/ast"
	"go/token"
	"slices"
)

// Limits of a function in the packages of strict. A reader sees 60 lines on one
// screen, and can tell five arguments of a call apart.
const (
	maxFunctionLines = 60
	maxParameters    = 5
)

// strict lists the folders whose functions are checked, each with all below it.
// "." stands for the root package alone.
var strict = []string{".", "worker/...", "deadletter/...", "internal/..."}

// named lists the folders of the root module, beside those of strict and all of the nested
// modules, whose calls pass no bare true or false. Functions there may be longer: a suite, or a
// parser, reads from top to bottom.
var named = []string{"attacktest", "backoff", "driver", "envelope", "keys", "observe", "queuetest", "sessionkey", "spec"}

// setters are methods of others whose only boolean is the value itself: those of
// sync/atomic, of package flag and of the one of qrt, and of encoding/json.
var setters = []string{"Store", "Swap", "CompareAndSwap", "Bool", "BoolVar", "BoolVarP", "SetEscapeHTML"}

// checkFunctions wants short functions with few parameters, and no bare true or
// false in the arguments of a call: a reader of the call cannot tell what it means.
// A constant with a name can.
func checkFunctions(t *Tree) []Violation {
	var list []Violation
	for _, f := range t.Files {
		root := f.Module == t.Root()
		short := root && matches(strict, f.Dir)
		if f.Test || root && !short && !matches(named, f.Dir) {
			continue
		}
		report := func(p token.Pos, format string, args ...any) {
			list = append(list, Violation{f.Path, t.line(p), fmt.Sprintf(format, args...)})
		}
		ast.Inspect(f.Syntax, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if !short {
					return true
				}
				if lines := t.line(n.End()) - t.line(n.Pos()) + 1; lines > maxFunctionLines {
					report(n.Pos(), "%s has %d lines, at most %d: split it", n.Name.Name, lines, maxFunctionLines)
				}
				if count := n.Type.Params.NumFields(); count > maxParameters {
					report(n.Pos(), "%s has %d parameters, at most %d: put those that belong together into a struct", n.Name.Name, count, maxParameters)
				}
			case *ast.CallExpr:
				if s, ok := n.Fun.(*ast.SelectorExpr); ok && slices.Contains(setters, s.Sel.Name) {
					return true
				}
				for _, arg := range n.Args {
					if id, ok := arg.(*ast.Ident); ok && (id.Name == "true" || id.Name == "false") {
						report(id.Pos(), "passes %s: give the value a name, or split the function in two", id.Name)
					}
				}
			}
			return true
		})
	}
	return sorted(list)
}
