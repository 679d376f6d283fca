package redisreplay_test

import (
	"crypto/fips140"
	"os"
	"os/exec"
	"testing"
)

// The store works under GODEBUG=fips140=only. The same tests run again, in a process in
// that mode. Those in synctest bubbles are not among them: there the time stands still that
// Go measures to seed its generator.
func TestFIPS(t *testing.T) {
	if fips140.Enforced() {
		t.Skip("this process is in that mode already")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^(TestFlushed|TestRestoredSnapshot|TestLeastRights|TestTLS|TestSharedBounds|TestURL)$")
	cmd.Env = append(os.Environ(), "GODEBUG=fips140=only")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
