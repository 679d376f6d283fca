package sqsqueue

import (
	"crypto/fips140"
	"os"
	"os/exec"
	"testing"

	"github.com/queue-runtime/queue/testbed/awspeer"
)

// Sealed messages go through SQS under GODEBUG=fips140=only, where the MD5 that
// the SDK would check bodies with panics. The same tests run again, in a process
// in that mode.
func TestFIPS(t *testing.T) {
	if fips140.Enforced() {
		t.Skip("this process is in that mode already")
	}
	awspeer.Fauxqs(t) // skips where it is not installed
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^(TestRequestsPerMessageAtPeer|TestOpenURL)$")
	cmd.Env = append(os.Environ(), "GODEBUG=fips140=only")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
