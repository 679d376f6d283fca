package display

import (
	"bytes"
	"strings"
	"testing"
)

// TestTableFitsTheScreen: at any width no line is longer than the screen, IDs stay
// apart, and what matters least goes first.
func TestTableFitsTheScreen(t *testing.T) {
	columns := []Column{{Title: "message", ID: true}, {Title: "session", Drop: 2}, {Title: "reason"}, {Title: "age", Right: true, Drop: 1}}
	rows := [][]string{
		{"0b9f6e8a-2f1c-4f0e-9e53-111111111111", "octo/hello-world:42", "authentication_failed", "12 s"},
		{"0b9f6e8a-2f1c-4f0e-9e53-222222222222", "octo/hello-world:43", "\x1b[33mmax_deliveries\x1b[0m", "1h20m"},
	}
	for _, c := range []struct {
		columns  string
		has, not []string
	}{
		{"", []string{"111111111111", "octo/hello-world:42", "12 s"}, []string{ellipsis}},
		{"120", []string{"111111111111", "octo/hello-world:42", "authentication_failed", "12 s"}, []string{ellipsis}},
		{"80", []string{"0b9f6e8a-2f1c-4f0e-9e53-1" + ellipsis, "0b9f6e8a-2f1c-4f0e-9e53-2" + ellipsis, "octo/", "12 s"}, nil},
		{"60", []string{"0b9f6e8a-2f1c-4f0e-9e53-1" + ellipsis, "octo/hel" + ellipsis, "authenti" + ellipsis, "12 s"}, nil},
		{"50", []string{"0b9f6e8a-2f1c-4f0e-9e53-1" + ellipsis, "authentic", "12 s"}, []string{"octo/", "session"}},
		{"40", []string{"0b9f6e8a-2f1c-4f0e-9e53-1" + ellipsis, "reason"}, []string{"octo/", "12 s"}},
		// Too narrow for a table: all columns, one below the other.
		{"30", []string{"0b9f6e8a-2f1c-4f0" + ellipsis, "octo/hello-world", "authentic", "12 s", "1h20m"}, nil},
		{"14", []string{"\n    12 s", "authentic", "1h20m"}, nil},
	} {
		t.Setenv("COLUMNS", c.columns)
		var b bytes.Buffer
		New(&b, Always).Table(columns, rows)
		for _, text := range c.has {
			if !strings.Contains(b.String(), text) {
				t.Errorf("COLUMNS=%s: no %q in\n%s", c.columns, text, b.String())
			}
		}
		for _, text := range c.not {
			if strings.Contains(b.String(), text) {
				t.Errorf("COLUMNS=%s: %q in\n%s", c.columns, text, b.String())
			}
		}
		if c.columns == "" {
			continue
		}
		for line := range strings.SplitSeq(b.String(), "\n") {
			if n := cellWidth(line); n > New(&b, Never).limit() {
				t.Errorf("COLUMNS=%s: a line of %d: %s", c.columns, n, line)
			}
		}
	}
}

// TestFrame: no line of a body begins at the left edge, as headers do.
func TestFrame(t *testing.T) {
	body := "one\n\nmessage m2  session s\r\n  sealed under key k1\t" + strings.Repeat("x", 30) + "message m3" + strings.Repeat("世", 20) + "\u2028message m4"
	for _, terminal := range []bool{false, true} {
		s := &Screen{terminal: terminal, width: 24}
		out := s.Frame(body)
		for line := range strings.SplitSeq(strings.TrimSuffix(out, "\n"), "\n") {
			if line != "│" && !strings.HasPrefix(line, "│ ") {
				t.Errorf("terminal %t: a line begins with %q", terminal, line)
			}
			if n := cellWidth(line); terminal && n > 24 {
				t.Errorf("a line is %d wide: %q", n, line)
			}
		}
	}
	if got := (&Screen{}).Frame("a\nb"); got != "│ a\n│ b\n" {
		t.Errorf("%q", got)
	}
}

// TestLine: what a line of ours has of a message in it never begins at the left edge of a
// terminal, painted or not.
func TestLine(t *testing.T) {
	for _, c := range []struct {
		terminal, color bool
		text            string
	}{
		{true, false, "  a=" + strings.Repeat("x", 20) + "message m2  session s   sealed under key k1, now" + strings.Repeat("世", 20)},
		{true, true, "message a  session " + strings.Repeat("x", 40)},
		{true, true, strings.Repeat("x", 24)}, // it fits
		{false, false, "  a=" + strings.Repeat("x", 100)},
	} {
		var b bytes.Buffer
		s := &Screen{w: &b, terminal: c.terminal, color: c.color, width: 24}
		s.Line(s.Bold(c.text))
		lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
		joined := ""
		for i, line := range lines {
			if n := cellWidth(line); c.terminal && n > 24 {
				t.Errorf("%q: a line is %d wide", line, n)
			}
			if i > 0 && !strings.HasPrefix(line, "    ") {
				t.Errorf("a line begins at the left edge: %q", line)
			}
			if i > 0 {
				line = line[4:]
			}
			joined += line
		}
		if joined != s.Bold(c.text) || !c.terminal && len(lines) != 1 || cellWidth(c.text) <= 24 && len(lines) != 1 {
			t.Errorf("%q became %q", c.text, lines)
		}
	}
}
