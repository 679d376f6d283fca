package docs_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// firstProgram is where the README's first program is a file that compiles.
const firstProgram = "first/main.go"

// TestReadmeFirstProgram: the first Go block of the README is a whole program, the very
// one that this test runs, and it prints what the README says.
func TestReadmeFirstProgram(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(readme), "```go\n")
	block, rest, closed := strings.Cut(rest, "```\n")
	if !found || !closed {
		t.Fatal("the README has no Go block")
	}
	file, err := os.ReadFile(firstProgram)
	if err != nil {
		t.Fatal(err)
	}
	_, program, _ := strings.Cut(string(file), "\n") // without its comment
	if block != program {
		t.Errorf("the README's first Go block is not docs/%s without its first line: copy it from there", firstProgram)
	}
	_, rest, found = strings.Cut(rest, "```text\n")
	want, _, closed := strings.Cut(rest, "```\n")
	if !found || !closed {
		t.Fatal("the README does not say what the program prints")
	}
	got, err := exec.CommandContext(t.Context(), "go", "run", "./first").CombinedOutput()
	if err != nil || string(got) != want {
		t.Errorf("the program prints %q, error %v; the README says %q", got, err, want)
	}
}
