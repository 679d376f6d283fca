package sqlitefile

import (
	"errors"
	"path/filepath"
	"testing"
)

// TestEpoch: what a transaction has read holds until another connection commits or a
// transaction is undone, and no longer.
func TestEpoch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.db")
	f, other := open(t, config(path)), open(t, config(path))
	failure := errors.New("failure")
	epoch := func(f *File, answer error) (n uint64) {
		t.Helper()
		err := f.Write(t.Context(), func(c *Conn) error {
			n = c.Epoch()
			return errors.Join(increment(c), answer)
		})
		if !errors.Is(err, answer) {
			t.Fatal(err)
		}
		return n
	}
	last := epoch(f, nil)
	if last == 0 {
		t.Error("the first epoch is 0")
	}
	for _, step := range []struct {
		what string
		do   func()
		ends bool
	}{
		{"nothing happened", func() {}, false},
		{"its own commits", func() { epoch(f, nil); epoch(f, nil) }, false},
		{"a read", func() { f.text(t, "SELECT n FROM t") }, false},
		{"another connection's read", func() { other.text(t, "SELECT n FROM t") }, false},
		{"another connection's commit", func() { epoch(other, nil) }, true},
		{"a commit after that", func() { epoch(f, nil) }, false},
		{"a transaction that was undone", func() { epoch(f, failure) }, true},
		{"another connection's transaction that was undone", func() { epoch(other, failure) }, false},
	} {
		step.do()
		now := epoch(f, nil)
		if ended := now != last; ended != step.ends {
			t.Errorf("%s: a new epoch: %v, want %v", step.what, ended, step.ends)
		}
		last = now
	}
}
