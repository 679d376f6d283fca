// Package display writes for people: coloured text, tables and progress bars.
//
// Colours and bars appear on a terminal only, unless forced; NO_COLOR and
// TERM=dumb are respected (https://no-color.org). Text that came from outside
// goes through [Safe] or [Block], so that a message cannot steer the terminal
// it is shown on.
//
// A Screen is for one goroutine at a time; a Bar is safe for concurrent use.
package display

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/term"
)

// Mode says when to colour.
type Mode string

// The modes.
const (
	Auto   Mode = "auto" // on a terminal
	Always Mode = "always"
	Never  Mode = "never"
)

// Screen is where text for people goes.
type Screen struct {
	w        io.Writer
	terminal bool
	color    bool
	width    int
	columns  int // of the variable COLUMNS, 0: not set
}

// fallbackWidth is that of a screen which is no terminal.
const fallbackWidth = 130

// New returns a Screen on w.
func New(w io.Writer, mode Mode) *Screen {
	s := &Screen{w: w, width: fallbackWidth}
	f, ok := w.(*os.File)
	if u, wrapped := w.(interface{ Unwrap() io.Writer }); wrapped {
		f, ok = u.Unwrap().(*os.File)
	}
	if ok && term.IsTerminal(int(f.Fd())) { //nolint:gosec // G115: a file descriptor fits
		s.terminal = os.Getenv("TERM") != "dumb"
		if n, _, err := term.GetSize(int(f.Fd())); err == nil && n > 0 { //nolint:gosec // G115: as above
			s.width = n
		}
	}
	// What a user exports is what a table may take, also in a file or a pipe (POSIX.1-2024,
	// Section 8.3).
	if n, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && n > 0 {
		s.columns = n
		if !s.terminal {
			s.width = n
		}
	}
	switch mode {
	case Always:
		s.color = true
	case Never:
	default:
		s.color = s.terminal && os.Getenv("NO_COLOR") == ""
	}
	return s
}

// Terminal reports whether the output is a terminal.
func (s *Screen) Terminal() bool { return s.terminal }

// limit is how wide a table may be: as wide as the terminal, as COLUMNS says elsewhere, and
// 0, without a limit, for programs and files.
func (s *Screen) limit() int {
	if s.terminal {
		return s.width
	}
	return s.columns
}

// Width is how many columns there are.
func (s *Screen) Width() int { return s.width }

// Printf writes a line or part of one. It drops errors; w keeps the first.
func (s *Screen) Printf(format string, args ...any) { _, _ = fmt.Fprintf(s.w, format, args...) }

// Println writes a line.
func (s *Screen) Println(args ...any) { _, _ = fmt.Fprintln(s.w, args...) }

// paint wraps text in an SGR sequence (ECMA-48, Section 8.3.117).
func (s *Screen) paint(code, text string) string {
	if !s.color || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// Bold, Dim and the colours return text painted so, or as it is.
func (s *Screen) Bold(text string) string { return s.paint("1", text) }

// Dim is for what matters less.
func (s *Screen) Dim(text string) string { return s.paint("2", text) }

// Good is for what is as it should be.
func (s *Screen) Good(text string) string { return s.paint("32", text) }

// Bad is for what is not.
func (s *Screen) Bad(text string) string { return s.paint("1;31", text) }

// Warn is for what deserves a look.
func (s *Screen) Warn(text string) string { return s.paint("33", text) }

// Name is for names that the reader can use in a command.
func (s *Screen) Name(text string) string { return s.paint("36", text) }

// Heading writes a title, and a note beside it.
func (s *Screen) Heading(title, note string) {
	s.Printf("\n%s", s.Bold(title))
	if note != "" {
		s.Printf("  %s", s.Dim(note))
	}
	s.Println()
}

// Note writes a paragraph, indented, wrapped at the width of the screen.
func (s *Screen) Note(text string) {
	for _, line := range Wrap(text, min(s.width, 100)-2) {
		s.Printf("  %s\n", s.Dim(line))
	}
}

// Lines breaks text that is to stand behind that many columns, if the screen has a limit;
// otherwise it is one line.
func (s *Screen) Lines(text string, behind int) []string {
	if s.limit() == 0 {
		return []string{text}
	}
	return Wrap(text, max(20, s.limit()-behind))
}

// Wrap breaks text at spaces into lines of at most width runes; longer words
// stand alone.
func Wrap(text string, width int) []string {
	var lines []string
	var line strings.Builder
	n := 0
	for _, word := range strings.Fields(text) {
		k := len([]rune(word))
		if n > 0 && n+1+k > width {
			lines = append(lines, line.String())
			line.Reset()
			n = 0
		}
		if n > 0 {
			line.WriteByte(' ')
			n++
		}
		line.WriteString(word)
		n += k
	}
	if n > 0 {
		lines = append(lines, line.String())
	}
	return lines
}
