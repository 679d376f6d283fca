package archtest

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"
)

// link finds the target of an inline link or image (CommonMark, Section 6.3), as
// far as documents here use it: without spaces or a title.
var link = regexp.MustCompile(`\]\(([^()\s]+)\)`)

// linked finds a whole inline link, of which a heading's anchor keeps the text.
var linked = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)

// checkLinks wants every link of a document that points into the repository to
// lead to a file or folder, and its anchor to a heading.
func checkLinks(t *Tree) []Violation {
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
		for i, l := range prose(string(src)) {
			for _, m := range link.FindAllStringSubmatch(l, -1) {
				if reason := broken(t.FS, name, m[1]); reason != "" {
					list = append(list, Violation{name, i + 1, fmt.Sprintf("links to %s: %s", m[1], reason)})
				}
			}
		}
		return nil
	})
	return sorted(list)
}

// broken says why a link in the document name leads nowhere, "" if it leads
// somewhere or out of the repository.
func broken(fsys fs.FS, name, target string) string {
	if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
		return ""
	}
	file, anchor, hasAnchor := strings.Cut(target, "#")
	to := name
	if file != "" {
		to = path.Join(path.Dir(name), file)
	}
	if !fs.ValidPath(to) {
		return "that lies outside of the repository"
	}
	if _, err := fs.Stat(fsys, to); err != nil {
		return "there is no such file; correct the path, or remove the link"
	}
	if !hasAnchor || path.Ext(to) != ".md" {
		return ""
	}
	src, err := fs.ReadFile(fsys, to)
	if err != nil {
		return err.Error()
	}
	for _, l := range prose(string(src)) {
		if text, ok := heading(l); ok && slug(text) == anchor {
			return ""
		}
	}
	return "no heading has that anchor; correct it"
}

// prose returns the lines of a document, those of fenced blocks emptied.
func prose(text string) []string {
	lines := strings.Split(text, "\n")
	inside := false
	for i, l := range lines {
		fence := strings.HasPrefix(strings.TrimSpace(l), "```")
		if fence || inside {
			lines[i] = ""
		}
		if fence {
			inside = !inside
		}
	}
	return lines
}

// heading returns the text of an ATX heading (CommonMark, Section 4.2).
func heading(line string) (string, bool) {
	text := strings.TrimLeft(line, "#")
	n := len(line) - len(text)
	text = linked.ReplaceAllString(text, "$1")
	return strings.TrimSpace(text), n >= 1 && n <= 6 && strings.HasPrefix(line[n:], " ")
}

// slug is the anchor that code hosts make of a heading: lower case, spaces as
// hyphens, no punctuation.
func slug(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || 'a' <= r && r <= 'z' || '0' <= r && r <= '9' || r > 0x7f:
			return r
		}
		return -1
	}, strings.ToLower(text))
}
