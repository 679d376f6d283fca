// Package archtest holds the rules by which this repository is built, as tests.
//
// The rules read the files themselves (Go source through go/parser, go.mod and
// go.work through a small reader) and run no other program: the go command's
// cache knows which files a test has opened, and not what a child process read,
// so a rule that asked "go list" would pass from the cache after the tree had
// changed.
//
// The test of the real tree is skipped if go.work is absent, as in a copy of
// one module from the module cache. Every rule has at least one planted fault
// that it must find, in faults_test.go.
package archtest

import (
	"cmp"
	"fmt"
	"slices"
)

// Rule is one rule that the whole tree keeps.
type Rule struct {
	// Name is the rule in a few words.
	Name string
	// Check returns every place where the tree breaks the rule.
	Check func(*Tree) []Violation
}

// Violation is a place that breaks a rule.
type Violation struct {
	// Path is relative to the root of the repository, with forward slashes.
	Path string
	// Line is 0 if the whole file, folder or module is meant.
	Line int
	// Text says what is wrong and what to do.
	Text string
}

func (v Violation) String() string {
	if v.Line == 0 {
		return fmt.Sprintf("%s: %s", v.Path, v.Text)
	}
	return fmt.Sprintf("%s:%d: %s", v.Path, v.Line, v.Text)
}

// Rules are all rules.
var Rules = []Rule{
	{"imports go one way", checkDirection},
	{"the root module requires nothing", checkNoRequire},
	{"names are nouns", checkNames},
	{"functions are short and their calls readable", checkFunctions},
	{"package queue stays small", checkAPI},
	{"test vectors are there", checkVectors},
	{"nested modules replace what they reach", checkReplace},
	{"released modules require what they import", checkRequire},
	{"go.work lists every module", checkWorkspace},
	{"tests do not sleep", checkSleep},
	{"Go in documents compiles", checkFragments},
	{"links in documents lead somewhere", checkLinks},
	{"documents that Go code names exist", checkReferences},
	{"tests that documents name exist", checkTestNames},
	{"prose is plain English", checkProse},
	{"paragraphs of documents are short", checkParagraphs},
}

// sorted orders violations by place, so that the output is stable.
func sorted(v []Violation) []Violation {
	slices.SortStableFunc(v, func(a, b Violation) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Line, b.Line))
	})
	return v
}
