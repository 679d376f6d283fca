package display

import (
	"strings"
	"unicode/utf8"

	"github.com/jedib0t/go-pretty/v6/text"
)

const (
	// gap is the space between columns, indent the one before the first.
	gap, indent = 3, 2
	// leastText is how many columns of the screen a shortened text keeps.
	leastText = 8
	// minID is how much of an ID stays, and maxID how much is kept for the sake of
	// telling IDs apart: a command refuses a prefix that several have.
	minID, maxID = 9, 40
	// tabWidth is how wide a tab is at most.
	tabWidth = 8
	// ellipsis ends what was shortened.
	ellipsis = "…"
)

// layout says which columns of a table are shown, and how wide each is.
type layout struct {
	shown  []int // indexes of columns, in order
	widths []int // of all columns
}

// lay fits columns of these natural widths into limit; 0 means no limit. Columns are
// shortened first; then the one with the highest Drop is left out, and so on. least is how
// much of each column has to stay.
func lay(columns []Column, natural, least []int, limit int) layout {
	l := layout{widths: append([]int(nil), natural...)}
	for i := range columns {
		l.shown = append(l.shown, i)
	}
	for limit > 0 && !l.shrink(natural, least, limit) {
		drop := -1 // the place in shown
		for at, i := range l.shown {
			if columns[i].Drop > 0 && (drop < 0 || columns[i].Drop >= columns[l.shown[drop]].Drop) {
				drop = at
			}
		}
		if drop < 0 {
			break // no narrower table says anything
		}
		l.shown = append(l.shown[:drop], l.shown[drop+1:]...)
	}
	return l
}

// total is how wide the table is.
func (l *layout) total() int {
	n := indent - gap
	for _, i := range l.shown {
		n += l.widths[i] + gap
	}
	return n
}

// shrink narrows the widest columns until the table fits, and reports whether it does.
func (l *layout) shrink(natural, least []int, limit int) bool {
	copy(l.widths, natural)
	for l.total() > limit {
		widest := -1
		for _, i := range l.shown {
			if l.widths[i] > least[i] && (widest < 0 || l.widths[i] > l.widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			return false
		}
		l.widths[widest]--
	}
	return true
}

// least is how much of each column has to stay: all of numbers, and as much of IDs as
// tells them apart.
func least(columns []Column, natural []int, rows [][]string) []int {
	out := make([]int, len(columns))
	for i, c := range columns {
		switch {
		case c.Right:
			out[i] = natural[i]
		case c.ID:
			out[i] = min(natural[i], max(minID, min(distinct(rows, i)+1, maxID), cellWidth(c.Title)))
		default:
			out[i] = min(natural[i], max(leastText, cellWidth(c.Title)))
		}
	}
	return out
}

// distinct is how many runes of a column's cells tell different ones apart.
func distinct(rows [][]string, column int) int {
	cells := make(map[string]bool)
	longest := 0
	for _, row := range rows {
		if column < len(row) {
			cell := text.StripEscape(row[column])
			cells[cell] = true
			longest = max(longest, len([]rune(cell)))
		}
	}
	n := min(minID-1, longest)
	for ; n < longest; n++ {
		prefixes := make(map[string]bool, len(cells))
		for cell := range cells {
			prefixes[string(firstRunes(cell, n))] = true
		}
		if len(prefixes) == len(cells) {
			break
		}
	}
	return n
}

func firstRunes(s string, n int) []rune {
	r := []rune(s)
	return r[:min(n, len(r))]
}

// cellWidth is how many columns of the screen a cell takes.
func cellWidth(cell string) int { return text.StringWidthWithoutEscSequences(cell) }

// shorten cuts a cell to a width.
func shorten(cell string, width int) string {
	if cellWidth(cell) <= width {
		return cell
	}
	return text.Snip(cell, width, ellipsis)
}

// Frame returns text of several lines with a bar before each, so that no line of it can be
// taken for one of ours. On a terminal lines are broken at its width for the same reason:
// the terminal would go on at the left edge.
func (s *Screen) Frame(body string) string {
	const bar = "│ "
	var b strings.Builder
	for line := range strings.SplitSeq(Block(body), "\n") {
		for {
			head, rest := line, ""
			if s.terminal {
				head, rest = cutWidth(line, max(1, s.width-cellWidth(bar)))
			}
			b.WriteString(s.Dim("│"))
			if head != "" {
				b.WriteString(" " + head)
			}
			b.WriteByte('\n')
			if line = rest; line == "" {
				break
			}
		}
	}
	return b.String()
}

// Line writes a line of ours that has texts of a message in it. On a terminal what does not
// fit goes on behind an indent: the terminal would go on at the left edge, where the next
// message begins.
func (s *Screen) Line(text string) {
	const indented = "    "
	if s.terminal {
		head, rest := cutWidth(text, max(1, s.width))
		for rest != "" {
			s.Println(head)
			head, rest = cutWidth(rest, max(1, s.width-len(indented)))
			head = indented + head
		}
		text = head
	}
	s.Println(text)
}

// cutWidth cuts a line after as many runes as fit into a width, at least one. SGR sequences
// take no room.
func cutWidth(line string, width int) (head, rest string) {
	n, cut, painting := 0, 0, false
	for i, r := range line {
		switch {
		case r == '\x1b':
			painting = true
			continue
		case painting:
			painting = r != 'm'
			continue
		}
		w := text.RuneWidth(r)
		if r == '\t' {
			w = tabWidth
		}
		if n += w; n > width && cut > 0 {
			return line[:cut], line[cut:]
		}
		cut = i + utf8.RuneLen(r)
	}
	return line, ""
}
