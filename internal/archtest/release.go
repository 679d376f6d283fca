package archtest

import (
	"fmt"
	"slices"
	"strings"
)

// unreleased is the version by which the main branch requires its own modules.
const unreleased = "v0.0.0"

// Tagged reports whether releases tag the module.
func (m *Module) Tagged() bool { return moduleKinds[m.Dir] != untagged }

// ReleaseOrder returns the modules that a release tags, each after those of this
// repository that it requires, and by folder among equals: a go.sum can only be
// written when what it names is final.
func (t *Tree) ReleaseOrder() ([]*Module, error) {
	heights := make(map[*Module]int)
	for range t.Modules { // the longest chain has one module less than there are
		for _, m := range t.Modules {
			for _, r := range m.Require {
				if sibling := t.module(r.Path); sibling != nil {
					heights[m] = max(heights[m], heights[sibling]+1)
				}
			}
		}
	}
	var list []*Module
	for _, m := range t.Modules {
		if heights[m] >= len(t.Modules) {
			return nil, fmt.Errorf("%s is part of a cycle of requirements: no order releases it", m.File())
		}
		if m.Tagged() {
			list = append(list, m)
		}
	}
	slices.SortStableFunc(list, func(a, b *Module) int {
		if heights[a] != heights[b] {
			return heights[a] - heights[b]
		}
		return strings.Compare(a.Dir, b.Dir)
	})
	return list, nil
}
