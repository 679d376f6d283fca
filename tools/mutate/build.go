package main

import (
	"context"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/build"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Names that the changed code uses; those of the packages never begin so.
const (
	awake  = "mutantAwake"
	choose = "mutantChoose"
)

// variable tells a test binary which mutant is awake: its number, or 0 for none.
const variable = "QRT_MUTANT"

// switchFile is what each changed package gets in addition.
const switchFile = `package %s

import (
	"os"
	"strconv"
)

var ` + awake + ` = func() int { n, _ := strconv.Atoi(os.Getenv("` + variable + `")); return n }()

func ` + choose + `[T any](id int, other, usual T) T {
	if ` + awake + ` == id {
		return other
	}
	return usual
}
`

// A suite is a compiled test binary, and the folder that its tests run in.
type suite struct {
	binary, dir string
}

// A changed holds all mutants in one tree that is laid over the repository.
type changed struct {
	dir      string // for what it makes
	subjects []string
	overlay  string
	mutants  []*mutant
	suites   map[string]suite // by the package's path in the module
}

// newBuild writes the changed files of the subjects to dir.
func newBuild(dir string, subjects []string) (*changed, error) {
	b := &changed{dir: dir, subjects: subjects, overlay: filepath.Join(dir, "overlay.json"), suites: map[string]suite{}}
	replace := map[string]string{}
	fset := token.NewFileSet()
	imports := importer.ForCompiler(fset, "source", nil)
	next := 0
	for _, path := range subjects {
		if err := b.change(fset, imports, path, &next, replace); err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(module, path), err)
		}
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return nil, err
	}
	return b, os.WriteFile(b.overlay, text, 0o600)
}

func (b *changed) change(fset *token.FileSet, imports types.Importer, path string, next *int, replace map[string]string) error {
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	p, err := build.ImportDir(filepath.Join(root, path), 0)
	if err != nil {
		return err
	}
	var files []*ast.File
	for _, name := range p.GoFiles {
		f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		files = append(files, f)
	}
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}, Defs: map[*ast.Ident]types.Object{}}
	if _, err := (&types.Config{Importer: imports}).Check(filepath.ToSlash(filepath.Join(module, path)), fset, files, info); err != nil {
		return err
	}
	seen := map[string]int{}
	for i, f := range files {
		place := filepath.Join(p.Dir, p.GoFiles[i])
		src, err := os.ReadFile(place)
		if err != nil {
			return err
		}
		m := &mutator{fset: fset, info: info, src: src, file: filepath.ToSlash(filepath.Join(path, p.GoFiles[i])), pkg: path, next: next, seen: seen}
		m.mutate(f)
		if len(m.found) == 0 {
			continue
		}
		b.mutants = append(b.mutants, m.found...)
		if err := b.write(replace, place, m.apply()); err != nil {
			return err
		}
	}
	return b.write(replace, filepath.Join(p.Dir, "mutant_switch.go"), fmt.Appendf(nil, switchFile, p.Name))
}

// write makes text stand in for the file at path.
func (b *changed) write(replace map[string]string, path string, text []byte) error {
	to := filepath.Join(b.dir, fmt.Sprintf("%d.go", len(replace)))
	replace[path] = to
	return os.WriteFile(to, text, 0o600)
}

// compile builds the test binaries of the subjects and of the further packages.
func (b *changed) compile(ctx context.Context, further []string) error {
	paths := slices.Concat(further, b.subjects)
	for i, path := range paths {
		if _, ok := b.suites[path]; ok {
			continue
		}
		binary := filepath.Join(b.dir, fmt.Sprintf("%d.test", i))
		//nolint:gosec // the arguments are of this program
		c := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-overlay", b.overlay, "-o", binary, "./"+path)
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(c.Args, " "), err, out)
		}
		b.suites[path] = suite{binary: binary, dir: path}
	}
	return nil
}
