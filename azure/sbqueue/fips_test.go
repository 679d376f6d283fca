package sbqueue_test

import (
	"bytes"
	"crypto/fips140"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/queue-runtime/queue/azure/sbqueue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/testbed/sbemulator"
)

// Messages go through Service Bus under GODEBUG=fips140=only. The tests run again,
// in a process in that mode.
func TestFIPS(t *testing.T) {
	t.Parallel()
	if fips140.Enforced() {
		t.Skip("this process is in that mode already")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.run=^(TestSignedClaims|TestShortKey|TestSettleOthers|TestCloseGivesSessionsUp)$")
	cmd.Env = append(os.Environ(), "GODEBUG=fips140=only")
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestSignedClaims ")) {
		t.Errorf("%v\n%s", err, out)
	}
}

// An emulator that verifies claims accepts those that the key signs.
func TestSignedClaims(t *testing.T) {
	t.Parallel()
	n := start(t, &sbemulator.Options{Key: "bm8gbmFtZXNwYWNlIGhhcyB0aGlz"}, sbemulator.QueueOptions{})
	q := n.open(t)
	send(t, q, &driver.Message{ID: "a"})
	if _, err := settle(t, q, receive(t, q, 1)[0], driver.MoveToDeadLetter); err != nil {
		t.Fatal(err)
	}
	if s, err := n.Stats("q"); err != nil || s.DeadLetters != 1 {
		t.Errorf("%+v, %v; want one dead letter", s, err)
	}
}

// A key that is too short to sign with is refused at once where that matters, with
// an error that does not repeat it.
func TestShortKey(t *testing.T) {
	t.Parallel()
	const short = "thirteenbytes"
	for _, at := range []string{
		"Endpoint=sb://127.0.0.1:1;SharedAccessKeyName=k;SharedAccessKey=" + short + ";UseDevelopmentEmulator=true",
		"endpoint=sb://example.servicebus.windows.net/;sharedaccesskeyname=k;sharedaccesskey=" + short,
	} {
		b, err := sbqueue.FromConnectionString(at, nil)
		switch {
		case err == nil && fips140.Enforced():
			t.Error("it was taken, and the SDK would panic")
		case err == nil:
			_ = b.Close(t.Context())
		case !fips140.Enforced():
			t.Error(err)
		case strings.Contains(err.Error(), short) || !strings.Contains(err.Error(), "14 bytes"):
			t.Errorf("unclear, or it tells the key: %v", err)
		}
	}
	s, err := sbemulator.Start(&sbemulator.Options{Key: short})
	if err == nil {
		_ = s.Close()
	}
	if (err != nil) != fips140.Enforced() {
		t.Errorf("emulator: %v", err)
	}
}
