// Package spec carries the specification of the QRE1 envelope and its test
// vectors, so that a program can be held against both without reading files.
//
// The vectors are recorded bytes, one a file, in the form that Section 9 of the
// document describes: envelopes that open, and for every way to fail one that
// must fail in that way. Package envelope runs them in its tests, and so can an
// implementation in another language: the folder vectors needs no Go.
package spec

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Document is the specification, in Markdown.
//
//go:embed qre1.md
var Document string

//go:embed vectors/*.txt
var files embed.FS

// Vectors returns all test vectors in the order of their names. It fails when one
// is not in the exact form of Section 9, and when there are none.
func Vectors() ([]*Vector, error) { return vectors(files) }

func vectors(fsys fs.FS) ([]*Vector, error) {
	names, err := fs.Glob(fsys, "vectors/*.txt")
	if err != nil {
		return nil, fmt.Errorf("spec: %w", err)
	}
	if len(names) == 0 {
		return nil, errors.New("spec: no vectors")
	}
	list := make([]*Vector, len(names))
	for i, name := range names {
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, fmt.Errorf("spec: %w", err)
		}
		v, err := ParseVector(string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		v.Name = strings.TrimSuffix(path.Base(name), ".txt")
		list[i] = v
	}
	slices.SortFunc(list, func(a, b *Vector) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}
