//go:build unix

package keys_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/queue-runtime/queue/keys"
)

// TestUpdateFileOwner: root rotates the keys of a service, which must still be
// able to read them.
func TestUpdateFileOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away; others keep it by making it")
	}
	path := filepath.Join(t.TempDir(), "keys.json")
	write(t, path, document("a"))
	const service = 12345
	if err := os.Chown(path, service, -1); err != nil {
		t.Fatal(err)
	}
	k := mustKey(t, "b", 2)
	if err := keys.UpdateFile(path, func(s *keys.Set) error { s.Keys = append(s.Keys, k); return nil }); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || stat.Uid != service || info.Mode() != 0o600 {
		t.Errorf("owner %+v, mode %v", info.Sys(), info.Mode())
	}
}

// TestFilePipe: a pipe in the place of the file is refused, not waited for.
func TestFilePipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := keys.OpenFile(path, nil); err == nil {
		t.Error("a pipe was read")
	}
}
