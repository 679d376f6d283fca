package archtest

import (
	"slices"
	"strings"
	"testing"
)

func TestReleaseOrder(t *testing.T) {
	tree, err := load(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	order, err := tree.ReleaseOrder()
	if err != nil {
		t.Fatal(err)
	}
	var dirs []string
	for _, m := range order {
		dirs = append(dirs, m.Dir)
	}
	// Examples are never released; connect requires sqlite, which requires testbed.
	want := []string{".", "cmd/qrt", "otel", "testbed", "sqlite", "connect"}
	if !slices.Equal(dirs, want) {
		t.Errorf("order %v, want %v", dirs, want)
	}
}

func TestReleaseOrderOfCycle(t *testing.T) {
	tree, err := load(t, map[string]string{"testbed/go.mod": clean["testbed/go.mod"] + "require example.com/queue/sqlite v0.0.0\n"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tree.ReleaseOrder(); err == nil || !strings.Contains(err.Error(), "cycle") {
		t.Errorf("error %v, want one that names the cycle", err)
	}
}

// In the commit of a release, a released module requires its siblings at a version
// and replaces nothing.
func TestReleaseCommit(t *testing.T) {
	tree, err := load(t, map[string]string{"otel/go.mod": "module example.com/queue/otel\n\nrequire example.com/queue v0.1.0\n"})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range checkReplace(tree) {
		t.Error(v)
	}
}
