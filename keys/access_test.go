package keys

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
)

func TestFileAccess(t *testing.T) {
	pod := []int{1000, 2000} // of a process that is not root; fsGroup is 2000
	for _, c := range []struct {
		mode     fs.FileMode
		uid, gid int
		rule     accessRule
		says     string // in the error; empty: accepted
	}{
		{0o400, 1000, 1000, ownerOrGroup, ""},
		{0o600, 0, 0, ownerOrGroup, ""},
		{0o440, 0, 2000, ownerOrGroup, ""},
		{0o640, 0, 1000, ownerOrGroup, ""},
		{0o440, 0, 3000, ownerOrGroup, "group 3000"},
		{0o440, 1000, 2000, ownerOrGroup, "chmod 600"},
		{0o440, 4000, 2000, ownerOrGroup, "user 4000"},
		{0o460, 0, 2000, ownerOrGroup, "others than its owner"},
		{0o420, 0, 2000, ownerOrGroup, "others than its owner"},
		{0o444, 0, 2000, ownerOrGroup, "defaultMode 0440"},
		{0o444, 4000, 4000, ownerOrGroup, "others than its owner"},
		{0o444, 0, 0, worldReadable, ""},
		{0o644, 1000, 1000, worldReadable, ""},
		{0o440, 1000, 2000, worldReadable, ""},
		{0o664, 0, 0, worldReadable, "mode 0664"},
		{0o646, 0, 0, worldReadable, "mode 0646"},
	} {
		a := fileAccess{mode: c.mode, uid: c.uid, gid: c.gid, groups: pod}
		err := a.check(c.rule)
		if (c.says == "") != (err == nil) || err != nil && (!errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%04o of %d:%d, rule %d: %v; want %q", c.mode, c.uid, c.gid, c.rule, err, c.says)
		}
	}
}

func TestCompareNames(t *testing.T) {
	ordered := []string{"a", "a-", "k1", "k02", "k2", "k2a", "k10", "k10-1", "k2026-1-31", "k2026-02-01", "k99999999999999999999", "k100000000000000000000", "l"}
	for i, a := range ordered {
		for j, b := range ordered {
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			// k02 and k2 are the same number: the one with fewer digits comes first.
			if a != b && strings.ReplaceAll(a, "k0", "k") == strings.ReplaceAll(b, "k0", "k") {
				continue
			}
			if got := compareNames(a, b); got != want {
				t.Errorf("%s, %s: %d, want %d", a, b, got, want)
			}
		}
	}
	for _, c := range [][2]string{{"k1", "ka"}, {"k9-1", "k10"}, {"k", "k1"}, {"k1", "k1a"}, {"1", "a"}, {"/", "0"}, {"9", ":"}} {
		if compareNames(c[0], c[1]) != -1 || compareNames(c[1], c[0]) != 1 {
			t.Errorf("%s does not come before %s", c[0], c[1])
		}
	}
	if compareNames("k2", "k02") >= 0 {
		t.Error("k2 does not come before k02: which is last would be chance")
	}
}
