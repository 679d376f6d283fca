package archtest

import (
	"io/fs"
	"path"
	"strings"
)

// checkFragments wants every Go fragment of a document to stand, line by line,
// in a Go file of the tree, where it is compiled: a fragment that nobody compiles
// is wrong before long. Indentation and blank lines do not count.
func checkFragments(t *Tree) []Violation {
	code := make(map[string]string) // Go file: its lines, as normal makes them
	for _, f := range t.Files {
		src, err := fs.ReadFile(t.FS, f.Path)
		if err == nil {
			code[f.Path] = normal(strings.Split(string(src), "\n"))
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
			if !contained(code, normal(b.lines)) {
				list = append(list, Violation{name, b.line, "the Go fragment stands in no Go file: put it into an example or a test, so that it compiles, and copy it from there"})
			}
		}
		return nil
	})
	return sorted(list)
}

func contained(code map[string]string, fragment string) bool {
	for _, c := range code {
		if strings.Contains(c, fragment) {
			return true
		}
	}
	return false
}

// normal joins lines without their indentation, leaving out blank ones. The
// newlines around it keep a fragment from matching a part of a line.
func normal(lines []string) string {
	var b strings.Builder
	b.WriteByte('\n')
	for _, l := range lines {
		if l = strings.TrimSpace(l); l != "" {
			b.WriteString(l)
			b.WriteByte('\n')
		}
	}
	return b.String()
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
