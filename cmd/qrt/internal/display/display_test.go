package display

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestSafe(t *testing.T) {
	for in, want := range map[string]string{
		"plain — text":    "plain — text",
		"\x1b[31mred":     `\x1b[31mred`,
		"a\nb\tc":         `a\nb\tc`,
		"bell\a":          `bell\a`,
		"\xff\xfe":        `\xff\xfe`,
		"left\u202eright": `left\u202eright`, // reverses what follows
		"zero\u200bwidth": `zero\u200bwidth`,
		"line\u2028sep":   `line\u2028sep`,
		"\x9b31m":         `\x9b31m`, // the C1 form of ESC [
		"":                "",
	} {
		if got := Safe(in); got != want {
			t.Errorf("Safe(%q) = %q, want %q", in, got, want)
		}
	}
	if got, want := Block("a\nb\tc\x1b[2J\r"), "a\nb\tc"+`\x1b[2J\r`; got != want {
		t.Errorf("Block = %q, want %q", got, want)
	}
}

func FuzzSafe(f *testing.F) {
	for _, s := range []string{"", "text", "\x1b]0;title\a", "\xff\u202e\u2028", "a\nb"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range Safe(s) {
			if unsafe(r, false) {
				t.Fatalf("Safe(%q) has %U", s, r)
			}
		}
		for _, r := range Block(s) {
			if unsafe(r, true) {
				t.Fatalf("Block(%q) has %U", s, r)
			}
		}
	})
}

// TestJSON: what might steer a terminal is escaped, and means the same.
func TestJSON(t *testing.T) {
	for _, text := range []string{"plain — text, 漢字", "\x1b[31m", "c1 \u009b31m", "del \x7f", "left\u202eright", "tag \U000e0041", "a\nb\tc", `\u009b "quoted"`, "\ufffd"} {
		in, err := json.Marshal(map[string]string{text: text})
		if err != nil {
			t.Fatal(err)
		}
		out := JSON(append(in, '\n'))
		for _, r := range string(out) {
			if unsafe(r, true) {
				t.Errorf("JSON(%s) has %U", in, r)
			}
		}
		var back map[string]string
		if err := json.Unmarshal(out, &back); err != nil || back[text] != text || len(back) != 1 {
			t.Errorf("JSON(%s) = %s means %q, %v", in, out, back, err)
		}
	}
	if in := []byte(`{"a":"plain — text"}`); string(JSON(in)) != string(in) {
		t.Errorf("plain text became %s", JSON(in))
	}
}

// TestList: a long table has one head, its columns stay where they are, and it is
// seen before its last row is known.
func TestList(t *testing.T) {
	var out bytes.Buffer
	l := New(&out, Never).List(Columns("name", ">count"))
	for i := range 3*page + 7 {
		l.Add([]string{"x", Count(i)})
		if n := strings.Count(out.String(), "\n"); n < i-page {
			t.Fatalf("%d lines are written after %d rows", n, i+1)
		}
	}
	l.End()
	l.End()
	lines := strings.Split(strings.TrimRight(out.String(), "\n"), "\n")
	if len(lines) != 3*page+7+2 || strings.Count(out.String(), "name") != 1 {
		t.Fatalf("%d lines, %d heads", len(lines), strings.Count(out.String(), "name"))
	}
	for _, i := range []int{2, page + 1, 3*page + 8} {
		if end := "x" + strings.Repeat(" ", len(lines[0])-len("  x")-len(Count(i-2))) + Count(i-2); lines[i] != "  "+end {
			t.Errorf("line %d is %q under %q", i, lines[i], lines[0])
		}
	}
	out.Reset()
	New(&out, Never).List(Columns("name")).End()
	if out.Len() > 0 {
		t.Errorf("no row, and %q", out.String())
	}
}

func TestFormats(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for got, want := range map[string]string{
		Count(0):                                 "0",
		Count(999):                               "999",
		Count(1000):                              "1,000",
		Count(-1234567):                          "-1,234,567",
		Bytes(0):                                 "0 B",
		Bytes(1023):                              "1023 B",
		Bytes(1536):                              "1.5 KiB",
		Bytes(200 << 10):                         "200 KiB",
		Bytes(int64(3) << 40):                    "3.0 TiB",
		Duration(0):                              "0 ns",
		Duration(1500 * time.Nanosecond):         "1.5 µs",
		Duration(2500 * time.Microsecond):        "2.5 ms",
		Duration(1234 * time.Millisecond):        "1.2 s",
		Duration(30 * time.Second):               "30 s",
		Duration(90 * time.Second):               "1m30s",
		Duration(24 * time.Hour):                 "24h0m",
		Duration(14 * 24 * time.Hour):            "14 days",
		Duration(-time.Second):                   "-1 s",
		Age(time.Time{}, now):                    "-",
		Age(now, now):                            "now",
		Age(now.Add(-90*time.Second), now):       "1m30s",
		Age(now.Add(time.Hour), now):             "now",
		Time(time.Time{}):                        "-",
		Time(now):                                "2026-01-02 03:04:05Z",
		strings.Join(Wrap("a bb ccc", 4), "|"):   "a bb|ccc",
		strings.Join(Wrap("abcdefgh i", 4), "|"): "abcdefgh|i",
		strings.Join(Wrap("", 4), "|"):           "",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestTable(t *testing.T) {
	var b bytes.Buffer
	s := New(&b, Never)
	s.Table(Columns("name", ">count"), [][]string{{"a", "1"}, {"bb", "1,000"}})
	want := "  name   count\n" +
		"  ────────────\n" +
		"  a          1\n" +
		"  bb     1,000\n"
	if got := b.String(); got != want && strings.ReplaceAll(got, "─", "") != strings.ReplaceAll(want, "─", "") {
		t.Errorf("table:\n%s\nwant:\n%s", got, want)
	}
}

func TestColor(t *testing.T) {
	t.Setenv("NO_COLOR", "")
	var b bytes.Buffer
	for mode, want := range map[Mode]string{Always: "\x1b[32mx\x1b[0m", Never: "x", Auto: "x"} {
		if got := New(&b, mode).Good("x"); got != want {
			t.Errorf("%s: %q, want %q", mode, got, want)
		}
	}
	if s := New(&b, Auto); s.Terminal() || s.Width() != fallbackWidth {
		t.Error("a buffer is taken for a terminal")
	}
	if got := New(&b, Always).Bold(""); got != "" {
		t.Errorf("nothing is painted as %q", got)
	}
}

// TestBar: on no terminal a bar shows nothing; on one it draws, and its goroutine
// ends with Done.
func TestBar(t *testing.T) {
	var b bytes.Buffer
	bar := New(&b, Auto).Bar("working", 10)
	bar.Add(1)
	bar.Set(2)
	bar.Done()
	bar.Done()
	if b.Len() > 0 {
		t.Errorf("it wrote %q", b.String())
	}
	s := New(&b, Always)
	s.terminal = true
	bar = s.Bar("working", 2)
	bar.Add(1)
	bar.Set(2)
	bar.Done() // returns when the drawing has ended: b may be read
	if !strings.Contains(b.String(), "working") && b.Len() == 0 {
		t.Error("nothing was drawn")
	}
}
