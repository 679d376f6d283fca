package archtest

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"
)

// maxParagraph bounds a paragraph of folder docs in lines: these pages are read in
// a hurry.
const maxParagraph = 5

// wording is a wording to avoid, and what to write.
type wording struct {
	pattern *regexp.Regexp
	advice  string
}

var wordings = []wording{
	{regexp.MustCompile(`(?i)\b(whoever|whomever|somebody|nobody|anybody|everybody|those\s+who|(by|for|from|of|only|than|to|with)\s+who)\b`),
		"name who does it: a caller, the broker, an attacker, another receiver; or write: no caller, every receiver"},
	{regexp.MustCompile(`(?i)\bbut\s+where\b`), "write unless, or except when"},
	{regexp.MustCompile(`(?i)(\b(nil|false|true|zero|empty|none|0|also|even|only)|"")\s+where\b`), "write if, unless or when"},
	{regexp.MustCompile(`\bNil:\s`), "write a sentence: Nil means ..."},
}

// conditional finds a sentence that begins with Where, up to its end or to a blank
// line. The capital letter shows that it is the first word.
var conditional = regexp.MustCompile(`\bWhere\s+(?:[^.?!:|\n]|\n[^.?!:|\n])*[.?!:|]?`)

// codeSpan is a code span (CommonMark, Section 6.1), as far as documents here use
// it.
var codeSpan = regexp.MustCompile("`[^`]*`")

// checkProse wants plain English: no wording to avoid in documents, and none in the
// comments of Go files.
func checkProse(t *Tree) []Violation {
	var list []Violation
	_ = walk(t.FS, func(name string) error { // Load has just read the same folders
		if path.Ext(name) != ".md" {
			return nil
		}
		src, err := fs.ReadFile(t.FS, name)
		if err != nil {
			return err
		}
		list = append(list, avoid(name, 1, strings.Join(prose(string(src)), "\n"))...)
		return nil
	})
	for _, f := range t.Files {
		for _, group := range f.Syntax.Comments {
			var lines []string // one each, since nothing stands between them
			for _, c := range group.List {
				lines = append(lines, strings.TrimPrefix(c.Text, "//"))
			}
			list = append(list, avoid(f.Path, t.line(group.Pos()), strings.Join(lines, "\n"))...)
		}
	}
	return sorted(list)
}

// avoid returns the wordings to avoid in a text that begins at the line.
func avoid(name string, line int, text string) []Violation {
	text = codeSpan.ReplaceAllStringFunc(text, func(span string) string {
		return strings.Repeat("\n", strings.Count(span, "\n"))
	})
	var list []Violation
	add := func(at int, found, advice string) {
		found = strings.Join(strings.Fields(found), " ")
		list = append(list, Violation{name, line + strings.Count(text[:at], "\n"), fmt.Sprintf("%q: %s", found, advice)})
	}
	for _, w := range wordings {
		for _, m := range w.pattern.FindAllStringIndex(text, -1) {
			add(m[0], text[m[0]:m[1]], w.advice)
		}
	}
	for _, m := range conditional.FindAllStringIndex(text, -1) {
		sentence := text[m[0]:m[1]]
		if strings.Contains(sentence, ",") && !strings.HasSuffix(sentence, "?") {
			add(m[0], "Where", "a condition begins with If, Unless or When")
		}
	}
	return list
}

// paragraph is a run of lines of a document that are neither blank, nor headings,
// nor rows of a table. An item of a list begins a new one.
type paragraph struct {
	line, lines int
}

var item = regexp.MustCompile(`^\s*([-*+]|[0-9]+[.)])\s`)

// checkParagraphs wants short paragraphs in the documents of folder docs.
func checkParagraphs(t *Tree) []Violation {
	var list []Violation
	_ = walk(t.FS, func(name string) error { // Load has just read the same folders
		if _, in := within(name, "docs"); !in || path.Ext(name) != ".md" {
			return nil
		}
		src, err := fs.ReadFile(t.FS, name)
		if err != nil {
			return err
		}
		for _, p := range paragraphs(prose(string(src))) {
			if p.lines > maxParagraph {
				list = append(list, Violation{name, p.line, fmt.Sprintf("a paragraph of %d lines: split it, %d are the most", p.lines, maxParagraph)})
			}
		}
		return nil
	})
	return sorted(list)
}

func paragraphs(lines []string) []paragraph {
	var list []paragraph
	inside := false
	for i, l := range lines {
		text := strings.TrimSpace(l)
		_, title := heading(l)
		switch {
		case text == "" || title || strings.HasPrefix(text, "|"):
			inside = false
		case inside && !item.MatchString(l):
			list[len(list)-1].lines++
		default:
			list = append(list, paragraph{i + 1, 1})
			inside = true
		}
	}
	return list
}
