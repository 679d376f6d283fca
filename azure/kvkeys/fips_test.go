package kvkeys

import (
	"bytes"
	"crypto/fips140"
	"os"
	"os/exec"
	"testing"
)

// Keys are fetched over TLS under GODEBUG=fips140=only. The same tests run again,
// in a process in that mode. Those in synctest bubbles are not among them: there
// the time stands still that Go measures to seed its generator.
func TestFIPS(t *testing.T) {
	if fips140.Enforced() {
		t.Skip("this process is in that mode already")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.run=^(TestSuiteThroughSDK|TestMaterial|TestNamesInVault|TestErrorsBeforeAnswer|TestNoLeak|TestURL|TestOpen)$/^secrets$/^(keys|rotation)$")
	cmd.Env = append(os.Environ(), "GODEBUG=fips140=only")
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestSuiteThroughSDK/secrets/rotation ")) {
		t.Errorf("%v\n%s", err, out)
	}
}
