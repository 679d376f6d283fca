package keys

import (
	"errors"
	"io/fs"
	"os"
	"runtime"
	"syscall"
	"testing"
)

// asAnother runs f on a thread of its own that is not root's, if this process is: it may not
// give files away.
func asAnother(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if os.Geteuid() == 0 {
			runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
			_, _, _ = syscall.RawSyscall(syscall.SYS_SETRESUID, ^uintptr(0), 12345, ^uintptr(0))
		}
		f()
	}()
	<-done
}

// A new file that its service could not read does not take the place of the old one.
func TestReplaceNeedsTheOwner(t *testing.T) {
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
		asAnother(func() {
			if replaced, err := replace(f, []byte("new"), target, old); replaced || !errors.Is(err, fs.ErrPermission) {
				t.Errorf("a file of user %d: replace = %t, %v; want %v", owner, replaced, err, fs.ErrPermission)
			}
		})
		if b, err := os.ReadFile(target); string(b) != "old" || err != nil {
			t.Errorf("the file of user %d holds %q, %v", owner, b, err)
		}
	}
}
