package archtest

import (
	"slices"
	"strings"
	"testing"
)

// TestProseLines wants each complaint at the line of its word, and none about what
// is quoted, asked or in code.
func TestProseLines(t *testing.T) {
	text := strings.Join([]string{
		"# Where a message goes, and when", // 1: a sentence with a comma
		"",
		"Where does it go, then? Nobody knows.", // 3
		"Write `somebody` in code, and `",
		"nobody` over two lines; then anybody.", // 5
		"",
		"```sh",
		"echo whoever",
		"```",
		"Where to look: there, first. Where it is full, it",
		"waits, for those", // 11
		"who read.",
	}, "\n")
	tree, err := load(t, map[string]string{
		"docs/x.md": text,
		"docs/x.go": "package docs\n\nvar x = \"nobody\"\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	var lines []int
	for _, v := range checkProse(tree) {
		if v.Path != "docs/x.md" {
			t.Errorf("complaint about %s", v)
		}
		lines = append(lines, v.Line)
	}
	if want := []int{1, 3, 5, 10, 11}; !slices.Equal(lines, want) {
		t.Errorf("complaints at lines %v, want %v", lines, want)
	}
}

// TestParagraphs counts the lines of what a reader sees as one block.
func TestParagraphs(t *testing.T) {
	tree, err := load(t, map[string]string{
		"docs/x.md": "# A\nb\nc\n\n| d |\n| e |\n| f |\n| g |\n| h |\n| i |\n\n- j\n- k\n- l\n- m\n- n\n- o\n\n```sh\np\nq\nr\ns\nt\nu\n```\n",
		"long.md":   "a\nb\nc\nd\ne\nf\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := checkParagraphs(tree); len(got) > 0 {
		t.Errorf("%v, want no complaint", got)
	}
}
