package archtest

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// vague are the words that say nothing about what a package or a file holds.
var vague = []string{
	"util", "utils", "common", "helper", "helpers", "misc", "types", "manager",
}

// checkNames wants packages and files that are named after what is in them.
func checkNames(t *Tree) []Violation {
	var list []Violation
	seen := make(map[string]bool)
	for _, f := range t.Files {
		for _, name := range []string{f.Syntax.Name.Name, path.Base(f.Dir)} {
			if word := vagueWord(name); word != "" && !seen[f.Dir] {
				seen[f.Dir] = true
				list = append(list, Violation{f.Dir, 0, fmt.Sprintf("the package is named %q, which says nothing of what it holds: name it by the noun that it is about", word)})
			}
		}
		if word := vagueWord(strings.TrimSuffix(path.Base(f.Path), ".go")); word != "" {
			list = append(list, Violation{f.Path, 0, fmt.Sprintf("the file is named %q, which says nothing of what it holds: name it by the noun that it is about", word)})
		}
	}
	return sorted(list)
}

// vagueWord returns the first vague word of a name whose words are joined by
// underscores, and "" if there is none.
func vagueWord(name string) string {
	for word := range strings.SplitSeq(strings.ToLower(name), "_") {
		if slices.Contains(vague, word) || slices.ContainsFunc(vague[:2], func(v string) bool { return len(word) > len(v) && strings.HasSuffix(word, v) }) {
			return word
		}
	}
	return ""
}
