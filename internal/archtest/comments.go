package archtest

import (
	"fmt"
	"go/ast"
	"go/token"
	"regexp"
	"slices"
	"strings"
)

// checkPackageComments wants a comment before the package clause of one file of
// each package, in the form that go doc expects.
func checkPackageComments(t *Tree) []Violation {
	var list []Violation
	dirs, files := t.packages()
	for _, dir := range dirs {
		name := files[dir][0].Syntax.Name.Name
		want := "Package " + name
		if name == "main" {
			want = "Command "
		}
		var text string
		for _, f := range files[dir] {
			// A comment that only holds directives, such as //go:build, has no text.
			if s := f.Syntax.Doc.Text(); s != "" {
				text = s
				break
			}
		}
		switch {
		case text == "":
			list = append(list, Violation{dir, 0, fmt.Sprintf("package %s has no comment: say in doc.go what it promises and what it does not, starting %q", name, strings.TrimSpace(want))})
		case !strings.HasPrefix(text, want):
			list = append(list, Violation{dir, 0, fmt.Sprintf("the comment of package %s does not start %q", name, strings.TrimSpace(want))})
		}
	}
	return list
}

// fixedMethods are methods whose meaning the standard library fixes.
var fixedMethods = []string{
	"Error", "Unwrap", "String", "GoString", "Format", "LogValue",
	"MarshalText", "UnmarshalText", "MarshalJSON", "UnmarshalJSON", "MarshalBinary", "UnmarshalBinary", "GobEncode", "GobDecode",
	"Len", "Less", "Swap",
}

// checkExported wants a comment on every exported name that a user of a library
// package can see: functions, methods, types, constants, variables, the methods
// of interfaces, and the fields of Options and Config structs. A name that the
// comment of its group, its type or a neighbour explains by name is documented.
func checkExported(t *Tree) []Violation {
	var list []Violation
	for _, f := range t.Files {
		if f.Test || !library(f) {
			continue
		}
		report := func(p token.Pos, name, what string) {
			list = append(list, Violation{f.Path, t.line(p), fmt.Sprintf("exported %s %s has no comment: say what it does, its units, what zero means, and its errors", what, name)})
		}
		for _, d := range f.Syntax.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				checkFunc(d, report)
			case *ast.GenDecl:
				checkDecl(d, report)
			}
		}
	}
	return sorted(list)
}

// library reports whether users import the package of f.
func library(f *File) bool {
	return f.Syntax.Name.Name != "main" &&
		moduleKinds[f.Module.Dir] < program &&
		!slices.Contains(strings.Split(f.Dir, "/"), "internal")
}

type reporter func(p token.Pos, name, what string)

func checkFunc(d *ast.FuncDecl, report reporter) {
	if !d.Name.IsExported() || d.Doc.Text() != "" {
		return
	}
	if d.Recv == nil {
		report(d.Pos(), d.Name.Name, "function")
		return
	}
	receiver := receiverName(d.Recv.List[0].Type)
	if ast.IsExported(receiver) && !slices.Contains(fixedMethods, d.Name.Name) {
		report(d.Pos(), receiver+"."+d.Name.Name, "method")
	}
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
		case *ast.ParenExpr:
			e = x.X
		case *ast.Ident:
			return x.Name
		default:
			return ""
		}
	}
}

func checkDecl(d *ast.GenDecl, report reporter) {
	for _, s := range d.Specs {
		switch s := s.(type) {
		case *ast.TypeSpec:
			if !s.Name.IsExported() {
				continue
			}
			doc := text(d.Doc, s.Doc, s.Comment)
			if doc == "" {
				report(s.Pos(), s.Name.Name, "type")
			}
			checkType(s, doc, report)
		case *ast.ValueSpec:
			if text(d.Doc, s.Doc, s.Comment) != "" {
				continue
			}
			for _, n := range s.Names {
				if n.IsExported() {
					report(n.Pos(), n.Name, d.Tok.String())
				}
			}
		}
	}
}

func checkType(s *ast.TypeSpec, doc string, report reporter) {
	switch x := s.Type.(type) {
	case *ast.InterfaceType:
		// A stand-in for *testing.T has its meaning from there, and the comment
		// of an interface with one method is that of the method.
		if strings.Contains(doc, "*testing.T") || doc != "" && len(x.Methods.List) == 1 {
			return
		}
		checkFields(s.Name.Name, "method", doc, x.Methods, report)
	case *ast.StructType:
		if strings.HasSuffix(s.Name.Name, "Options") || strings.HasSuffix(s.Name.Name, "Config") {
			checkFields(s.Name.Name, "field", doc, x.Fields, report)
		}
	}
}

func checkFields(parent, what, doc string, fields *ast.FieldList, report reporter) {
	all := doc
	for _, f := range fields.List {
		all += text(f.Doc, f.Comment)
	}
	for _, f := range fields.List {
		if text(f.Doc, f.Comment) != "" {
			continue
		}
		for _, n := range f.Names {
			if n.IsExported() && !mentions(all, n.Name) {
				report(n.Pos(), parent+"."+n.Name, what)
			}
		}
	}
}

func mentions(text, name string) bool {
	return regexp.MustCompile(`\b` + regexp.QuoteMeta(name) + `\b`).MatchString(text)
}

// text joins what the comment groups say.
func text(groups ...*ast.CommentGroup) string {
	var b strings.Builder
	for _, g := range groups {
		b.WriteString(g.Text())
	}
	return b.String()
}
