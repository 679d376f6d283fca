package archtest

import (
	"fmt"
	"go/ast"
	"go/token"
)

// Limits of the API of package queue: what a reader can hold in his head.
const (
	maxExported = 142 // package-level names and methods, not fields; River's root, which does less, has 245
	maxSummary  = 60  // lines of go doc -short
)

// checkAPI bounds what package queue exports.
func checkAPI(t *Tree) []Violation {
	names, summary := 0, 0
	for _, f := range t.Files {
		if f.Dir != "." || f.Test {
			continue
		}
		for _, d := range f.Syntax.Decls {
			n, lines := exported(d)
			names, summary = names+n, summary+lines
		}
	}
	var list []Violation
	if names > maxExported {
		list = append(list, Violation{".", 0, fmt.Sprintf("package queue exports %d names, at most %d: unexport what no user needs", names, maxExported)})
	}
	if summary > maxSummary {
		list = append(list, Violation{".", 0, fmt.Sprintf("go doc -short prints %d lines, at most %d: group what belongs together", summary, maxSummary)})
	}
	return list
}

// exported counts the exported names of a declaration, and the lines that go doc
// -short prints for it: one for each type and function, and one for each group of
// constants or variables. Methods have none.
func exported(d ast.Decl) (names, lines int) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if !d.Name.IsExported() {
			return 0, 0
		}
		if d.Recv == nil {
			return 1, 1
		}
		if ast.IsExported(receiverName(d.Recv.List[0].Type)) {
			return 1, 0
		}
	case *ast.GenDecl:
		for _, s := range d.Specs {
			switch s := s.(type) {
			case *ast.TypeSpec:
				if s.Name.IsExported() {
					names, lines = names+1, lines+1
				}
			case *ast.ValueSpec:
				for _, n := range s.Names {
					if n.IsExported() {
						names++
					}
				}
			}
		}
		if d.Tok != token.TYPE {
			lines = min(names, 1)
		}
	}
	return names, lines
}

// receiverName returns the name of a method's type, without pointer and type
// parameters.
func receiverName(e ast.Expr) string {
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.IndexListExpr:
			e = x.X
		case *ast.Ident:
			return x.Name
		default:
			return ""
		}
	}
}
