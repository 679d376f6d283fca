package archtest

import (
	"io/fs"
	"strings"
)

// vectorFolder holds the test vectors of QRE1, one a file.
const vectorFolder = "spec/vectors"

// checkVectors sees to it that the vectors exist and travel with package spec, so
// that no test of them can pass because it found none.
func checkVectors(t *Tree) []Violation {
	var list []Violation
	files, err := fs.Glob(t.FS, vectorFolder+"/*.txt")
	if err != nil || len(files) == 0 {
		list = append(list, Violation{vectorFolder, 0, "holds no vector (*.txt): the wire format is only fixed while recorded bytes fix it"})
	}
	for _, name := range files {
		if info, err := fs.Stat(t.FS, name); err != nil || info.Size() == 0 {
			list = append(list, Violation{name, 0, "is empty: record the vector or remove the file"})
		}
	}
	for _, f := range t.Files {
		if f.Dir != "spec" || f.Test {
			continue
		}
		for _, g := range f.Syntax.Comments {
			for _, c := range g.List {
				if args, ok := strings.CutPrefix(c.Text, "//go:embed "); ok && strings.Contains(args, "vectors") {
					return list
				}
			}
		}
	}
	return append(list, Violation{"spec", 0, "embeds no vectors: add //go:embed vectors/*.txt, so that other modules and languages can run them"})
}
