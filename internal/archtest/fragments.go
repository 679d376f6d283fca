package archtest

import (
	"io/fs"
	"path"
	"slices"
	"strings"
)

// checkFragments wants the lines of every Go fragment of a document to stand in
// one Go file of the tree, in the same order, so that they are compiled: a fragment
// that is never compiled is wrong before long. A document may leave lines out, above
// all the handling of errors. White space does not count.
func checkFragments(t *Tree) []Violation {
	var code [][]string
	for _, f := range t.Files {
		if src, err := fs.ReadFile(t.FS, f.Path); err == nil {
			code = append(code, words(strings.Split(string(src), "\n")))
		}
	}
	var list []Violation
	// An error of walk is one of reading; Load has just read the same folders.
	_ = walk(t.FS, func(name string) error {
		if path.Ext(name) != ".md" {
			return nil
		}
		src, err := fs.ReadFile(t.FS, name)
		if err != nil {
			return err
		}
		for _, b := range blocks(string(src)) {
			if !contained(code, words(b.lines)) {
				list = append(list, Violation{name, b.line, "the lines of the Go fragment stand in no Go file in this order: put them into an example or a test, so that they compile, and copy them from there"})
			}
		}
		return nil
	})
	return sorted(list)
}

func contained(files [][]string, fragment []string) bool {
	return slices.ContainsFunc(files, func(lines []string) bool {
		rest := fragment
		for _, l := range lines {
			if len(rest) > 0 && l == rest[0] {
				rest = rest[1:]
			}
		}
		return len(rest) == 0
	})
}

// words returns the lines that are not blank, with single spaces in them and none
// around.
func words(lines []string) []string {
	var list []string
	for _, l := range lines {
		if l = strings.Join(strings.Fields(l), " "); l != "" {
			list = append(list, l)
		}
	}
	return list
}

// block is one fenced block of a document; line is that of its fence.
type block struct {
	line  int
	lines []string
}

// blocks returns the fenced blocks marked as Go (CommonMark, Section 4.5).
func blocks(text string) []block {
	var list []block
	var open *block
	other := false // in a block of another language
	for i, l := range strings.Split(text, "\n") {
		fence, isFence := strings.CutPrefix(strings.TrimSpace(l), "```")
		switch {
		case isFence && (open != nil || other):
			if open != nil {
				list = append(list, *open)
			}
			open, other = nil, false
		case isFence && strings.TrimSpace(fence) == "go":
			open = &block{line: i + 1}
		case isFence:
			other = true
		case open != nil:
			open.lines = append(open.lines, l)
		}
	}
	if open != nil {
		list = append(list, *open)
	}
	return list
}
