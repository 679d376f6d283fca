package display

import (
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// Column heads a column of a table.
type Column struct {
	Title string
	// Right aligns numbers. They are never shortened.
	Right bool
	// ID says that the cells are IDs: they are shortened to prefixes that tell them apart.
	ID bool
	// Drop says how early the column is left out if the table is wider than the screen: the
	// highest first. 0 means never.
	Drop int
}

// Columns returns columns of these titles; a title that begins with ">" is
// aligned to the right.
func Columns(titles ...string) []Column {
	c := make([]Column, len(titles))
	for i, t := range titles {
		c[i].Title, c[i].Right = strings.CutPrefix(t, ">")
	}
	return c
}

// Table writes rows under their heads. Cells must be Safe.
func (s *Screen) Table(columns []Column, rows [][]string) {
	l := s.List(columns)
	l.show(rows)
}

// page is how many rows a List waits for, to know how wide its columns are.
const page = 200

// List is a table of any number of rows, which are written some at a time, so that
// it is soon seen and takes little memory. End it.
type List struct {
	s       *Screen
	columns []Column
	rows    [][]string
	widths  []int // natural ones, as far as is known
	shown   []int // columns; nil until the head is written
	upright bool  // no table is narrow enough: each cell has a line
}

// List begins a table. Nothing is written if no row comes.
func (s *Screen) List(columns []Column) *List {
	return &List{s: s, columns: columns, widths: make([]int, len(columns))}
}

// Add adds a row, whose cells must be Safe.
func (l *List) Add(row []string) {
	if l.rows = append(l.rows, row); len(l.rows) == page {
		l.End()
	}
}

// End writes what is left.
func (l *List) End() {
	if len(l.rows) > 0 {
		l.show(l.rows)
		l.rows = nil
	}
}

// show writes rows, under the heads if they are the first.
func (l *List) show(rows [][]string) {
	t := table.NewWriter()
	box := table.StyleBoxLight
	box.PaddingLeft, box.PaddingRight = "", "   "
	t.SetStyle(table.Style{
		Name: "qrt",
		Box:  box,
		Options: table.Options{
			SeparateHeader: true,
		},
		Format: table.FormatOptions{Header: text.FormatDefault, Row: text.FormatDefault, Footer: text.FormatDefault},
	})
	for i, c := range l.columns {
		l.widths[i] = max(l.widths[i], cellWidth(c.Title))
		for _, row := range rows {
			if i < len(row) {
				l.widths[i] = max(l.widths[i], cellWidth(row[i]))
			}
		}
	}
	first := l.shown == nil
	fit := l.layout(rows)
	if l.upright {
		l.list(rows, first)
		return
	}
	head := make(table.Row, len(l.shown))
	configs := make([]table.ColumnConfig, len(l.shown))
	for at, i := range l.shown {
		c := l.columns[i]
		head[at] = l.s.Dim(c.Title)
		configs[at] = table.ColumnConfig{Number: at + 1, WidthMin: fit.widths[i]}
		if c.Right {
			configs[at].Align, configs[at].AlignHeader = text.AlignRight, text.AlignRight
		}
	}
	if first {
		t.AppendHeader(head)
	}
	t.SetColumnConfigs(configs)
	for _, row := range rows {
		cells := make(table.Row, 0, len(l.shown))
		for _, i := range l.shown {
			if i < len(row) {
				cells = append(cells, shorten(row[i], fit.widths[i]))
			}
		}
		t.AppendRow(cells)
	}
	for line := range strings.SplitSeq(t.Render(), "\n") {
		line = strings.TrimRight(line, " ")
		if strings.Trim(line, "─") == "" {
			line = l.s.Dim(strings.TrimSuffix(line, strings.Repeat("─", gap))) // no wider than the rows
		}
		l.s.Printf("  %s\n", line)
	}
}

// list writes each row as a block, and each of its cells beside its title, or below it if
// there is no room.
func (l *List) list(rows [][]string, first bool) {
	titles := 0
	for _, c := range l.columns {
		titles = max(titles, cellWidth(c.Title))
	}
	limit := l.s.limit()
	for _, row := range rows {
		if !first {
			l.s.Println()
		}
		first = false
		for i, cell := range row {
			if i == len(l.columns) || cell == "" {
				continue
			}
			c, room := l.columns[i], limit-indent-titles-gap
			before := strings.Repeat(" ", titles-cellWidth(c.Title)+gap)
			switch narrow := room < min(leastText, cellWidth(cell)); {
			case narrow && c.Title == "":
				room, before = limit-indent, ""
			case narrow:
				room, before = limit-2*indent, "\n"+strings.Repeat(" ", 2*indent)
			}
			if !c.Right { // numbers are never shortened
				cell = shorten(cell, max(room, 1))
			}
			l.s.Printf("%s%s%s%s\n", strings.Repeat(" ", indent), l.s.Dim(c.Title), before, cell)
		}
	}
}

// layout fits the rows into the screen. Which columns there are is settled by the first
// rows: the head stands above all.
func (l *List) layout(rows [][]string) layout {
	limit := l.s.limit()
	keep := least(l.columns, l.widths, rows)
	if l.shown == nil {
		fit := lay(l.columns, l.widths, keep, limit)
		l.shown, l.upright = fit.shown, limit > 0 && fit.total() > limit
		return fit
	}
	fit := layout{shown: l.shown, widths: append([]int(nil), l.widths...)}
	if limit > 0 {
		fit.shrink(l.widths, keep, limit)
	}
	return fit
}

// Count writes a number with separators between thousands.
func Count[N ~int | ~int64](n N) string {
	digits := strconv.FormatInt(int64(n), 10)
	sign := ""
	if digits[0] == '-' {
		sign, digits = "-", digits[1:]
	}
	var b strings.Builder
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return sign + b.String()
}

// Bytes writes a size in binary units (IEC 80000-13).
func Bytes[N ~int | ~int64](n N) string {
	f, unit := float64(n), 0
	units := [...]string{"B", "KiB", "MiB", "GiB", "TiB"}
	for f >= 1024 && unit < len(units)-1 {
		f /= 1024
		unit++
	}
	if unit == 0 || f >= 100 {
		return strconv.FormatFloat(f, 'f', 0, 64) + " " + units[unit]
	}
	return strconv.FormatFloat(f, 'f', 1, 64) + " " + units[unit]
}

// Duration writes d with two significant units at most.
func Duration(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + Duration(-d)
	case d < time.Microsecond:
		return strconv.FormatInt(d.Nanoseconds(), 10) + " ns"
	case d < time.Millisecond:
		return strconv.FormatFloat(float64(d)/float64(time.Microsecond), 'f', 1, 64) + " µs"
	case d < time.Second:
		return strconv.FormatFloat(float64(d)/float64(time.Millisecond), 'f', 1, 64) + " ms"
	case d < time.Minute && d%time.Second == 0:
		return strconv.FormatInt(int64(d/time.Second), 10) + " s"
	case d < time.Minute:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	case d < 48*time.Hour:
		text := d.Round(time.Second).String()
		if short, ok := strings.CutSuffix(text, "m0s"); ok {
			return short + "m"
		}
		return text
	}
	days := int64(d / (24 * time.Hour))
	return Count(days) + " days"
}

// Age writes how long ago t was, "now" below a second, and "-" for the zero time.
func Age(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := now.Sub(t).Round(time.Second)
	if d <= 0 {
		return "now"
	}
	return Duration(d)
}

// Time writes t in UTC, and "-" for the zero time.
func Time(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}
