//go:build !race

// The race detector has sync.Pool drop what it is given, at random.
package drbg

import (
	"crypto/fips140"
	"os"
	"os/exec"
	"testing"
	"testing/synctest"
)

// TestPrime: after Prime, reads that overlap in a bubble seed no generator, which would
// panic. The mode is that of a process, so the test runs itself in it.
func TestPrime(t *testing.T) {
	if !fips140.Enabled() {
		program, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		c := exec.CommandContext(t.Context(), program, "-test.run=^TestPrime$", "-test.v") //nolint:gosec // G204: this program
		c.Env = append(os.Environ(), "GODEBUG=fips140=only")
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	Prime()
	for range 5 {
		synctest.Test(t, func(*testing.T) { overlap(instances / 2) })
	}
}
