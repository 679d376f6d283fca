package archtest

import (
	"fmt"
	"go/version"
	"path"
	"strings"
)

// checkReplace lets each nested module build, tidy and test alone: its go.mod
// leads to the root and to each sibling that it requires, by path, and to
// nothing else. A replacement of any other module would not reach users, who
// then build something that was never tested. The commit of a release pins its
// siblings to a version instead (see tools/release).
func checkReplace(t *Tree) []Violation {
	var list []Violation
	root := t.Root()
	for _, m := range t.Modules[1:] {
		if want := root.Path + "/" + m.Dir; m.Path != want {
			list = append(list, Violation{m.File(), 0, fmt.Sprintf("declares module %s: in folder %s it is %s", m.Path, m.Dir, want)})
		}
		replaced := make(map[string]bool)
		for _, r := range m.Replace {
			sibling := t.module(r.Old)
			if sibling == nil {
				list = append(list, Violation{m.File(), r.Line, fmt.Sprintf("replaces %s: only modules of this repository are replaced; require a version of it that works", r.Old)})
				continue
			}
			replaced[r.Old] = true
			if r.Version != "" || !strings.HasPrefix(r.New, ".") || path.Join(m.Dir, r.New) != sibling.Dir {
				list = append(list, Violation{m.File(), r.Line, fmt.Sprintf("replaces %s by %s: write %s", r.Old, r.New, relative(m.Dir, sibling.Dir))})
			}
		}
		for _, r := range m.Require {
			if sibling := t.module(r.Path); sibling != nil && !replaced[r.Path] && !m.pins(r) {
				list = append(list, Violation{m.File(), r.Line, fmt.Sprintf("requires %s without replacing it: add replace %s => %s", r.Path, r.Path, relative(m.Dir, sibling.Dir))})
			}
		}
	}
	return sorted(list)
}

// pins reports whether a released module requires a sibling at a version that
// exists, as it does in the commit of a release.
func (m *Module) pins(r Require) bool { return m.Tagged() && r.Version != unreleased }

// checkRequire keeps test libraries out of what users download: a released module
// requires directly only what its own code imports outside of tests, the root and
// testbed. A library that only tests need belongs to testbed or to module tests.
// Testbed itself is made of what tests need, so its tests count as its code.
func checkRequire(t *Tree) []Violation {
	var list []Violation
	for _, m := range t.Modules[1:] {
		if moduleKinds[m.Dir] == untagged {
			continue
		}
		imported := make(map[string]bool) // paths of required modules
		for _, f := range t.Files {
			if f.Module != m || f.Test && moduleKinds[m.Dir] != foundation {
				continue
			}
			for _, i := range t.imports(f) {
				imported[m.requirement(i.Path)] = true
			}
		}
		for _, r := range m.Require {
			sibling := t.module(r.Path)
			exempt := sibling != nil && (sibling == t.Root() || sibling.Dir == testbedDir)
			if !r.Indirect && !exempt && !imported[r.Path] {
				list = append(list, Violation{m.File(), r.Line, fmt.Sprintf("requires %s, which no package of %s imports outside of tests: move the tests that need it to module tests, or what they need to testbed", r.Path, m.Dir)})
			}
		}
	}
	return list
}

// requirement returns the path of the required module that provides a package: the
// longest that contains it, "" if there is none.
func (m *Module) requirement(importPath string) string {
	longest := ""
	for _, r := range m.Require {
		if _, ok := within(importPath, r.Path); ok && len(r.Path) > len(longest) {
			longest = r.Path
		}
	}
	return longest
}

// module returns the module of that path, nil if it is none of ours.
func (t *Tree) module(modulePath string) *Module {
	for _, m := range t.Modules {
		if m.Path == modulePath {
			return m
		}
	}
	return nil
}

// relative returns the path that leads from one folder of the tree to another.
func relative(from, to string) string {
	up := strings.Repeat("../", strings.Count(from, "/")+1)
	if to == "." {
		return up
	}
	return up + to
}

// checkWorkspace makes "go test work" mean every module, and work at all.
func checkWorkspace(t *Tree) []Violation {
	var list []Violation
	used := make(map[string]bool)
	for _, u := range t.Work.Use {
		used[u.Dir] = true
		if m := t.moduleOf(u.Dir); m == nil || m.Dir != u.Dir {
			list = append(list, Violation{"go.work", u.Line, fmt.Sprintf("uses %s, which has no go.mod: remove the line", u.Dir)})
		}
	}
	for _, m := range t.Modules {
		if !used[m.Dir] {
			list = append(list, Violation{"go.work", 0, fmt.Sprintf("does not list %s: add use ./%s", m.File(), path.Clean(m.Dir))})
		}
	}
	for _, m := range t.Modules {
		if used[m.Dir] && version.Compare("go"+t.Work.Go, "go"+m.Go) < 0 {
			list = append(list, Violation{"go.work", 0, fmt.Sprintf("says go %s, and %s needs go %s: the go command refuses that; write go %s", t.Work.Go, m.File(), m.Go, m.Go)})
		}
	}
	for _, r := range t.Work.Replace {
		list = append(list, Violation{"go.work", r.Line, "has a replace line: each go.mod carries its own, so that it works alone"})
	}
	return list
}

// checkNoRequire holds the claim that a program that imports the root module gets no
// other module with it.
func checkNoRequire(t *Tree) []Violation {
	var list []Violation
	root := t.Root()
	for _, r := range root.Require {
		list = append(list, Violation{root.File(), r.Line, fmt.Sprintf("requires %s: the root module has no requirements; put the code that needs it into a nested module", r.Path)})
	}
	for _, r := range root.Replace {
		list = append(list, Violation{root.File(), r.Line, fmt.Sprintf("replaces %s: the root module has nothing to replace; remove the line", r.Old)})
	}
	for _, d := range root.Other {
		if d.Verb == "retract" {
			continue
		}
		list = append(list, Violation{root.File(), d.Line, fmt.Sprintf("has a %s line: the root's go.mod names the module, the version of Go and retracted versions, and nothing else", d.Verb)})
	}
	return list
}
