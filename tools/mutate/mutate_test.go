package main

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A mutant of a small module survives exactly if no test of it could fail: Held is
// tested in all that it does, Loose only for its result without an error.
func TestSurvivors(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module " + module + "\n\ngo 1.26\n",
		"x.go": `package queue

import "errors"

var errBelow = errors.New("below")

func Held(a int) (int, error) {
	if a < 1 {
		return 0, errBelow
	}
	n := 0
	n += a
	return n - 1, nil
}

func Loose(a int) (int, error) {
	if a < 1 {
		return 0, errBelow
	}
	return a, nil
}

func Never() bool { return false || len(errBelow.Error()) > 9 }
`,
		"x_test.go": `package queue

import "testing"

func TestHeld(t *testing.T) {
	for a, want := range map[int]int{1: 0, 5: 4} {
		if n, err := Held(a); n != want || err != nil {
			t.Error(a, n, err)
		}
	}
	if n, err := Held(0); n != 0 || err == nil {
		t.Error(n, err)
	}
}

func TestLoose(t *testing.T) {
	if n, err := Loose(7); n != 7 || err != nil {
		t.Error(n, err)
	}
}
`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	t.Setenv("GOWORK", "off")
	t.Setenv("GOFLAGS", "-mod=mod")
	b, err := newBuild(t.TempDir(), []string{""})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.compile(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	results, err := b.try(t.Context(), b.mutants, nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var survived []string
	killed := 0
	for _, r := range results {
		if r.killer == "" {
			survived = append(survived, r.name())
		} else {
			killed++
		}
	}
	slices.Sort(survived)
	want := []string{
		"x.go Loose: a < 1 -> a <= 1",
		"x.go Loose: if a < 1 -> false",
		"x.go Loose: return 0, errBelow -> return 0, nil",
		`x.go Never: false || len(errBelow.Error()) > 9 -> false`,
		`x.go Never: false || len(errBelow.Error()) > 9 -> len(errBelow.Error()) > 9`,
		`x.go Never: len(errBelow.Error()) > 9 -> len(errBelow.Error()) >= 9`,
	}
	if !slices.Equal(survived, want) {
		t.Errorf("survived:\n%s\nwant:\n%s", strings.Join(survived, "\n"), strings.Join(want, "\n"))
	}
	if killed != 7 {
		t.Errorf("%d were killed, want the 6 of Held and the condition of Loose", killed)
	}
}

// A reason for a mutant that is gone is refused, and so is a line without a reason.
func TestEquivalents(t *testing.T) {
	file := filepath.Join(t.TempDir(), "equivalents.txt")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# why\n\nx.go F: a -> b\tno caller sees it\n")
	reasons, err := readEquivalents(file)
	if err != nil {
		t.Fatal(err)
	}
	m := &mutant{file: "x.go", fn: "F", change: "a -> b"}
	other := &mutant{file: "x.go", fn: "G", change: "a -> b"}
	if err := summarize(io.Discard, "", []result{{m, ""}, {other, "killer"}}, reasons, []*mutant{m, other}); err == nil || !strings.Contains(err.Error(), "85 %") {
		t.Errorf("one of two killed: got %v, want the least share", err)
	}
	if err := summarize(io.Discard, "", []result{{other, "killer"}}, reasons, []*mutant{m, other}); err != nil {
		t.Errorf("all killed: got %v", err)
	}
	if err := summarize(io.Discard, "", []result{{other, "killer"}}, reasons, []*mutant{other}); err == nil || !strings.Contains(err.Error(), "delete the line") {
		t.Errorf("a reason for no mutant: got %v", err)
	}
	for _, text := range []string{"x.go F: a -> b\n", "x.go F: a -> b\t \n"} {
		write(text)
		if _, err := readEquivalents(file); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
}

// Each reason in equivalents.txt is of a mutant of the code as it is.
func TestEquivalentsFit(t *testing.T) {
	reasons, err := readEquivalents("equivalents.txt")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(filepath.Join("..", ".."))
	b, err := newBuild(t.TempDir(), subjects)
	if err != nil {
		t.Fatal(err)
	}
	if err := fit(reasons, b.mutants); err != nil || len(reasons) == 0 {
		t.Errorf("%d reasons: %v", len(reasons), err)
	}
}
