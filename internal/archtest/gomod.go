package archtest

import (
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// Module is what a go.mod says (https://go.dev/ref/mod#go-mod-file).
type Module struct {
	Dir     string
	Path    string
	Go      string
	Require []Require
	Replace []Replace
	// Other holds the directives that are neither module, go, toolchain,
	// require nor replace.
	Other []Directive
}

// File is the path of the go.mod.
func (m *Module) File() string { return path.Join(m.Dir, "go.mod") }

// Require is one requirement.
type Require struct {
	Path, Version string
	Indirect      bool // marked // indirect: no package of the module imports it
	Line          int
}

// Replace is one replacement; New is a path of a folder where Version is empty.
type Replace struct {
	Old, OldVersion, New, Version string
	Line                          int
}

// Directive is one directive with its arguments. Comment is the text behind // on
// its line.
type Directive struct {
	Verb    string
	Args    []string
	Comment string
	Line    int
}

// Work is what a go.work says.
type Work struct {
	Go      string
	Use     []Use
	Replace []Directive
}

// Use is one folder of a go.work, as a clean path from the root of the tree.
type Use struct {
	Dir  string
	Line int
}

func readModule(fsys fs.FS, name string) (*Module, error) {
	list, err := readDirectives(fsys, name)
	if err != nil {
		return nil, err
	}
	m := &Module{Dir: path.Dir(name)}
	for _, d := range list {
		switch d.Verb {
		case "module":
			m.Path = strings.Join(d.Args, " ")
		case "go":
			m.Go = strings.Join(d.Args, " ")
		case "toolchain":
		case "require":
			if len(d.Args) != 2 {
				return nil, fmt.Errorf("%s:%d: a requirement is a path and a version", name, d.Line)
			}
			m.Require = append(m.Require, Require{d.Args[0], d.Args[1], d.Comment == "indirect", d.Line})
		case "replace":
			r, err := replacement(d)
			if err != nil {
				return nil, fmt.Errorf("%s:%d: %w", name, d.Line, err)
			}
			m.Replace = append(m.Replace, r)
		default:
			m.Other = append(m.Other, d)
		}
	}
	if m.Path == "" {
		return nil, fmt.Errorf("%s: no module line", name)
	}
	return m, nil
}

// replacement reads "old [version] => new [version]".
func replacement(d Directive) (Replace, error) {
	r := Replace{Line: d.Line}
	for i, a := range d.Args {
		if a != "=>" {
			continue
		}
		before, after := d.Args[:i], d.Args[i+1:]
		if len(before) < 1 || len(before) > 2 || len(after) < 1 || len(after) > 2 {
			break
		}
		r.Old, r.New = before[0], after[0]
		if len(before) == 2 {
			r.OldVersion = before[1]
		}
		if len(after) == 2 {
			r.Version = after[1]
		}
		return r, nil
	}
	return r, fmt.Errorf("a replacement is a path, =>, and a path")
}

func readWork(fsys fs.FS) (*Work, error) {
	list, err := readDirectives(fsys, "go.work")
	if err != nil {
		return nil, err
	}
	w := &Work{}
	for _, d := range list {
		switch d.Verb {
		case "go":
			w.Go = strings.Join(d.Args, " ")
		case "use":
			if len(d.Args) != 1 {
				return nil, fmt.Errorf("go.work:%d: use takes one folder", d.Line)
			}
			w.Use = append(w.Use, Use{path.Clean(d.Args[0]), d.Line})
		case "replace":
			w.Replace = append(w.Replace, d)
		}
	}
	return w, nil
}

// readDirectives reads the line syntax that go.mod and go.work share: one
// directive a line, or a verb with a block in parentheses, and // comments.
func readDirectives(fsys fs.FS, name string) ([]Directive, error) {
	src, err := fs.ReadFile(fsys, name)
	if err != nil {
		return nil, err
	}
	var list []Directive
	block := ""
	for i, text := range strings.Split(string(src), "\n") {
		text, comment, _ := strings.Cut(text, "//")
		comment = strings.TrimSpace(comment)
		fields := strings.Fields(text)
		line := i + 1
		for j, f := range fields {
			if f[0] != '"' && f[0] != '`' {
				continue
			}
			if fields[j], err = strconv.Unquote(f); err != nil {
				return nil, fmt.Errorf("%s:%d: broken string %s", name, line, f)
			}
		}
		switch {
		case len(fields) == 0:
		case block != "" && fields[0] == ")":
			block = ""
		case block != "":
			list = append(list, Directive{block, fields, comment, line})
		case len(fields) == 2 && fields[1] == "(":
			block = fields[0]
		case strings.HasSuffix(fields[0], "(") && len(fields) == 1:
			block = strings.TrimSuffix(fields[0], "(")
		default:
			list = append(list, Directive{fields[0], fields[1:], comment, line})
		}
	}
	if block != "" {
		return nil, fmt.Errorf("%s: the block of %s has no end", name, block)
	}
	return list, nil
}
