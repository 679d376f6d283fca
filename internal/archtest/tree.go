package archtest

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Tree is a repository as the rules see it. All paths are relative to its root
// and have forward slashes.
type Tree struct {
	FS      fs.FS
	Work    *Work
	Modules []*Module // the root module first
	Files   []*File   // every Go file
	fset    *token.FileSet
}

// File is one Go file.
type File struct {
	Path   string
	Dir    string
	Module *Module
	Test   bool // its name ends in _test.go
	Lines  int
	Syntax *ast.File
}

// Import is one import of a file.
type Import struct {
	Path string
	Line int
}

// Load reads the tree below the root of fsys, which has to hold a go.work and a
// go.mod. A file that does not parse is an error. Folders that the go command
// ignores (names with a leading dot or underscore, testdata, vendor) and
// node_modules are left out.
func Load(fsys fs.FS) (*Tree, error) {
	t := &Tree{FS: fsys, fset: token.NewFileSet()}
	work, err := readWork(fsys)
	if err != nil {
		return nil, err
	}
	t.Work = work
	if t.Modules, err = findModules(fsys); err != nil {
		return nil, err
	}
	err = walk(fsys, func(name string) error {
		if path.Ext(name) != ".go" {
			return nil
		}
		f, err := t.parse(name)
		if err != nil {
			return err
		}
		t.Files = append(t.Files, f)
		return nil
	})
	return t, err
}

// walk calls f for every file in a folder that the go command looks at.
func walk(fsys fs.FS, f func(name string) error) error {
	return fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := path.Base(name)
		if d.IsDir() {
			if name != "." && (base[0] == '.' || base[0] == '_' || base == "testdata" || base == "vendor" || base == "node_modules") {
				return fs.SkipDir
			}
			return nil
		}
		if base[0] == '.' || base[0] == '_' {
			return nil
		}
		return f(name)
	})
}

func (t *Tree) parse(name string) (*File, error) {
	src, err := fs.ReadFile(t.FS, name)
	if err != nil {
		return nil, err
	}
	syntax, err := parser.ParseFile(t.fset, name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	f := &File{
		Path:   name,
		Dir:    path.Dir(name),
		Test:   strings.HasSuffix(name, "_test.go"),
		Lines:  bytes.Count(src, []byte("\n")),
		Syntax: syntax,
	}
	f.Module = t.moduleOf(f.Dir)
	return f, nil
}

// moduleOf returns the module that the folder belongs to: the innermost.
func (t *Tree) moduleOf(dir string) *Module {
	for ; ; dir = path.Dir(dir) {
		for _, m := range t.Modules {
			if m.Dir == dir {
				return m
			}
		}
		if dir == "." {
			return nil
		}
	}
}

// Root returns the module at the root of the tree.
func (t *Tree) Root() *Module { return t.Modules[0] }

// line is the line of a position.
func (t *Tree) line(p token.Pos) int { return t.fset.Position(p).Line }

// imports returns what f imports.
func (t *Tree) imports(f *File) []Import {
	var list []Import
	for _, s := range f.Syntax.Imports {
		p, err := strconv.Unquote(s.Path.Value)
		if err != nil {
			continue // the parser has accepted it, so this is a string
		}
		list = append(list, Import{p, t.line(s.Pos())})
	}
	return list
}

// importName returns the name under which f imports the package, which is the
// last element of pkg where no other is given, and "" if it does not.
func (t *Tree) importName(f *File, pkg string) string {
	for _, s := range f.Syntax.Imports {
		if p, err := strconv.Unquote(s.Path.Value); err != nil || p != pkg {
			continue
		}
		if s.Name != nil {
			return s.Name.Name
		}
		return path.Base(pkg)
	}
	return ""
}

// resolve finds the module and the folder of an import path of this repository.
// ok is false for every other path.
func (t *Tree) resolve(importPath string) (m *Module, dir string, ok bool) {
	for _, c := range t.Modules {
		rest, in := within(importPath, c.Path)
		if in && (m == nil || len(c.Path) > len(m.Path)) {
			m, dir = c, path.Join(c.Dir, rest)
		}
	}
	return m, dir, m != nil
}

// within reports whether name is parent or lies below it, and where.
func within(name, parent string) (rest string, ok bool) {
	if name == parent {
		return "", true
	}
	return strings.CutPrefix(name, parent+"/")
}

// findModules reads every go.mod of the tree.
func findModules(fsys fs.FS) ([]*Module, error) {
	var list []*Module
	err := walk(fsys, func(name string) error {
		if path.Base(name) != "go.mod" {
			return nil
		}
		m, err := readModule(fsys, name)
		if err != nil {
			return err
		}
		list = append(list, m)
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list, func(a, b *Module) int { return strings.Compare(a.Dir, b.Dir) })
	if len(list) == 0 || list[0].Dir != "." {
		return nil, errors.New("no go.mod at the root of the tree")
	}
	for i, m := range list {
		for _, n := range list[:i] {
			if m.Path == n.Path {
				return nil, fmt.Errorf("%s and %s declare the same module %s", n.File(), m.File(), m.Path)
			}
		}
	}
	return list, nil
}
