package keys

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// asRootVariable makes the test binary, as root, the process that may change its user. That
// is one of all threads, and other tests have threads too.
const asRootVariable = "KEYS_TEST_AS_ROOT"

// asAnother runs f as a user that is not root: it may not give files away.
func asAnother(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() == 0 {
		if err := syscall.Setresuid(-1, 12345, -1); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := syscall.Setresuid(-1, 0, -1); err != nil {
				t.Fatal(err)
			}
		}()
	}
	f()
}

// A new file that its service could not read does not take the place of the old one.
func TestReplaceNeedsTheOwner(t *testing.T) {
	if os.Geteuid() == 0 && os.Getenv(asRootVariable) == "" {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		c := exec.Command(self, "-test.run=^"+t.Name()+"$", "-test.v")
		c.Env = append(os.Environ(), asRootVariable+"=1")
		if out, err := c.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	const target = "keys.json"
	for _, owner := range []int{0, 23456} {
		t.Chdir(t.TempDir())
		for _, err := range []error{os.Chmod(".", 0o777), os.WriteFile(target, []byte("old"), 0o600), os.WriteFile("other", nil, 0o600)} { //nolint:gosec // G302: for the other user
			if err != nil {
				t.Fatal(err)
			}
		}
		other := "other"
		if os.Geteuid() != 0 {
			other = "/" // which is another's
		} else if err := os.Chown(other, owner, -1); err != nil {
			t.Fatal(err)
		}
		old, err := os.Stat(other)
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(target+".lock", os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		asAnother(t, func() {
			if replaced, err := replace(f, []byte("new"), target, old); replaced || !errors.Is(err, fs.ErrPermission) {
				t.Errorf("a file of user %d: replace = %t, %v; want %v", owner, replaced, err, fs.ErrPermission)
			}
		})
		if b, err := os.ReadFile(target); string(b) != "old" || err != nil {
			t.Errorf("the file of user %d holds %q, %v", owner, b, err)
		}
	}
}
