// Package docpage reads the pages of docs/ for tests that hold code against them.
package docpage

import (
	"os"
	"regexp"
)

// TB is the part of *testing.T that this package uses.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
}

// Read returns a page; path is relative to the folder of the test.
func Read(t TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return string(b)
}

// Block returns the first block of code of a language on a page, such as "json".
func Block(t TB, path, language string) string {
	t.Helper()
	found := regexp.MustCompile("(?s)```" + regexp.QuoteMeta(language) + "\n(.*?)```").FindStringSubmatch(Read(t, path))
	if found == nil {
		t.Fatalf("%s has no block of %s", path, language)
		return ""
	}
	return found[1]
}
