package main

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/token"
	"go/types"
	"slices"
	"strings"
)

// A mutant is one change of the code.
type mutant struct {
	id      int
	pkg     string // path in the module
	file    string // in the repository
	line    int
	fn      string // that it is in
	change  string // what becomes what
	ordinal int    // among the same changes in fn
}

// name tells a mutant from others in a way that survives edits elsewhere in the file.
func (m *mutant) name() string {
	n := m.file + " " + m.fn + ": " + m.change
	if m.ordinal > 0 {
		n += fmt.Sprintf(" #%d", m.ordinal+1)
	}
	return n
}

// An edit puts text before the byte at a place of a file.
type edit struct {
	at   int
	text string
	size int  // of what it surrounds
	end  bool // it ends what it surrounds
}

// mutator finds the mutants of a file.
type mutator struct {
	fset  *token.FileSet
	info  *types.Info
	src   []byte
	file  string
	pkg   string
	fn    string
	next  *int
	edits []edit
	found []*mutant
	seen  map[string]int
}

func (m *mutator) offset(p token.Pos) int { return m.fset.Position(p).Offset }

func (m *mutator) text(n ast.Node) string {
	return string(m.src[m.offset(n.Pos()):m.offset(n.End())])
}

// add notes a mutant at n, and returns its number.
func (m *mutator) add(n ast.Node, change string) int {
	*m.next++
	change = strings.Join(strings.Fields(change), " ")
	key := m.fn + ": " + change
	m.found = append(m.found, &mutant{id: *m.next, pkg: m.pkg, file: m.file, line: m.fset.Position(n.Pos()).Line,
		fn: m.fn, change: change, ordinal: m.seen[key]})
	m.seen[key]++
	return *m.next
}

// surround puts text before and after n.
func (m *mutator) surround(n ast.Node, before, after string) {
	from, to := m.offset(n.Pos()), m.offset(n.End())
	m.edits = append(m.edits, edit{at: from, text: before, size: to - from}, edit{at: to, text: after, size: to - from, end: true})
}

// apply returns the file with all edits.
func (m *mutator) apply() []byte {
	slices.SortStableFunc(m.edits, func(a, b edit) int {
		switch {
		case a.at != b.at:
			return a.at - b.at
		case a.end != b.end: // what ends here ends before something begins
			if a.end {
				return -1
			}
			return 1
		case a.end:
			return a.size - b.size // the inner one ends first
		default:
			return b.size - a.size // the outer one begins first
		}
	})
	var out []byte
	last := 0
	for _, e := range m.edits {
		out = append(append(out, m.src[last:e.at]...), e.text...)
		last = e.at
	}
	return append(out, m.src[last:]...)
}

// mutate finds all mutants of f.
func (m *mutator) mutate(f *ast.File) {
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Body == nil {
			continue
		}
		m.fn = fn.Name.Name
		if fn.Recv != nil {
			m.fn = strings.TrimPrefix(types.ExprString(fn.Recv.List[0].Type), "*") + "." + m.fn
		}
		m.body(fn.Body, m.results(fn.Type))
	}
}

// results are the types that a function returns.
func (m *mutator) results(t *ast.FuncType) []types.Type {
	var all []types.Type
	if t.Results == nil {
		return nil
	}
	for _, f := range t.Results.List {
		for range max(len(f.Names), 1) {
			all = append(all, m.info.TypeOf(f.Type))
		}
	}
	return all
}

func (m *mutator) body(b *ast.BlockStmt, results []types.Type) {
	ast.Inspect(b, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			m.body(n.Body, m.results(n.Type))
			return false
		case *ast.BlockStmt:
			m.statements(n.List, results)
		case *ast.CaseClause:
			m.statements(n.Body, results)
		case *ast.CommClause:
			m.statements(n.Body, results)
		case *ast.IfStmt:
			m.condition(n.Cond)
		case *ast.BinaryExpr:
			m.binary(n)
		}
		return true
	})
}

// statements takes away each statement that other code does not need to compile, and
// makes returned errors vanish.
func (m *mutator) statements(list []ast.Stmt, results []types.Type) {
	for _, s := range list {
		switch s := s.(type) {
		case *ast.ExprStmt:
			if !m.panics(s.X) {
				m.take(s)
			}
		case *ast.AssignStmt:
			if s.Tok != token.DEFINE && !blank(s.Lhs) {
				m.take(s)
			}
		case *ast.IncDecStmt, *ast.SendStmt, *ast.DeferStmt, *ast.GoStmt:
			m.take(s)
		case *ast.ReturnStmt:
			m.returned(s, results)
		}
	}
}

// blank reports whether all of an assignment goes to _.
func blank(lhs []ast.Expr) bool {
	return !slices.ContainsFunc(lhs, func(e ast.Expr) bool {
		id, ok := e.(*ast.Ident)
		return !ok || id.Name != "_"
	})
}

func (m *mutator) panics(e ast.Expr) bool {
	call, ok := e.(*ast.CallExpr)
	if !ok {
		return false
	}
	id, ok := call.Fun.(*ast.Ident)
	return ok && id.Name == "panic"
}

func (m *mutator) take(s ast.Stmt) {
	id := m.add(s, "without "+first(m.text(s)))
	m.surround(s, fmt.Sprintf("if %s != %d { ", awake, id), " }")
}

// first is the first line of a statement.
func first(text string) string {
	line, _, more := strings.Cut(text, "\n")
	if more {
		line += " ..."
	}
	return line
}

// returned makes an error that is returned nil, and a bool its opposite.
func (m *mutator) returned(s *ast.ReturnStmt, results []types.Type) {
	if len(s.Results) == 0 || len(s.Results) != len(results) {
		return
	}
	last := s.Results[len(s.Results)-1]
	kind := results[len(results)-1]
	var other string
	switch {
	case types.Identical(kind, types.Universe.Lookup("error").Type()):
		if id, ok := last.(*ast.Ident); ok && id.Name == "nil" {
			return
		}
		other = "nil"
	case types.Identical(kind, types.Typ[types.Bool]):
		if _, ok := last.(*ast.BinaryExpr); ok {
			return // its operator is changed
		}
		other = "!(" + m.text(last) + ")"
	default:
		return
	}
	var values []string
	for _, r := range s.Results[:len(s.Results)-1] {
		values = append(values, m.text(r))
	}
	values = append(values, other)
	id := m.add(s, first(m.text(s))+" -> return "+first(strings.Join(values, ", ")))
	m.surround(s, fmt.Sprintf("if %s == %d { return %s }; ", awake, id, strings.Join(values, ", ")), "")
}

// condition makes the condition of an if always false, and always true.
func (m *mutator) condition(e ast.Expr) {
	if !types.Identical(m.info.TypeOf(e).Underlying(), types.Typ[types.Bool]) && !types.Identical(m.info.TypeOf(e), types.Typ[types.UntypedBool]) {
		return
	}
	no, yes := m.add(e, "if "+m.text(e)+" -> false"), m.add(e, "if "+m.text(e)+" -> true")
	m.surround(e, fmt.Sprintf("%s == %d || %s != %d && (", awake, yes, awake, no), ")")
}

// swapped are the operators that stand in for one.
var swapped = map[token.Token][]string{
	token.LSS: {"<="}, token.LEQ: {"<"}, token.GTR: {">="}, token.GEQ: {">"},
	token.EQL: {"!="}, token.NEQ: {"=="},
	token.ADD: {"-"}, token.SUB: {"+"}, token.AND: {"|"}, token.OR: {"&"}, token.SHL: {">>"}, token.SHR: {"<<"},
}

func (m *mutator) binary(e *ast.BinaryExpr) {
	if v := m.info.Types[e]; v.Value != nil && v.Value.Kind() != constant.Unknown {
		return // a constant has to stay one
	}
	x, y := m.text(e.X), m.text(e.Y)
	switch e.Op {
	case token.LAND, token.LOR:
		left, right := m.add(e, x+" "+e.Op.String()+" "+y+" -> "+x), m.add(e, x+" "+e.Op.String()+" "+y+" -> "+y)
		m.surround(e, fmt.Sprintf("(%s == %d && (%s) || %s == %d && (%s) || %s != %d && %s != %d && (", awake, left, x, awake, right, y, awake, left, awake, right), "))")
		return
	case token.LSS, token.LEQ, token.GTR, token.GEQ, token.EQL, token.NEQ:
		other := x + " " + swapped[e.Op][0] + " " + y
		id := m.add(e, m.text(e)+" -> "+other)
		m.surround(e, fmt.Sprintf("(%s == %d && %s || %s != %d && (", awake, id, other, awake, id), "))")
		return
	}
	b, ok := m.info.TypeOf(e).Underlying().(*types.Basic)
	if len(swapped[e.Op]) == 0 || !ok || b.Info()&types.IsInteger == 0 || b.Info()&types.IsUntyped != 0 || !pure(e) {
		return
	}
	other := "(" + x + ") " + swapped[e.Op][0] + " (" + y + ")"
	id := m.add(e, m.text(e)+" -> "+x+" "+swapped[e.Op][0]+" "+y)
	m.surround(e, fmt.Sprintf("%s(%d, %s, ", choose, id, other), ")")
}

// pure reports whether e may be worked out twice: it calls nothing but what reads.
func pure(e ast.Expr) bool {
	ok := true
	ast.Inspect(e, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			id, is := n.Fun.(*ast.Ident)
			ok = ok && is && slices.Contains([]string{"len", "cap", "int", "int64", "uint64", "uint32", "uint16", "byte", "uint"}, id.Name)
		case *ast.UnaryExpr:
			ok = ok && n.Op != token.ARROW
		case *ast.BinaryExpr:
			ok = ok && n.Op != token.QUO && n.Op != token.REM
		case *ast.FuncLit:
			ok = false
		}
		return ok
	})
	return ok
}
