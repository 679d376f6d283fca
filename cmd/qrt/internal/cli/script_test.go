package cli_test

import (
	"flag"
	"os"
	"testing"
	"time"

	"github.com/queue-runtime/queue/testbed/script"

	"github.com/queue-runtime/queue/cmd/qrt/internal/cli"
)

// TestMain makes the test binary qrt when it is called by that name: scripts run
// it as a process of its own.
func TestMain(m *testing.M) {
	// Most of what runs here waits: for a disk, a process, a queue to stay empty.
	// More of it at once than there are processors is over sooner; -parallel comes
	// after this and has its way.
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	script.Main(m, "qrt", func() {
		cli.SetCompletionTimeout(time.Minute)
		os.Exit(cli.Main())
	})
}

// TestScript runs the scripts in testdata/script: every command, its exit codes
// and the form of its JSON.
func TestScript(t *testing.T) {
	t.Parallel()
	script.Run(t, "testdata/script", nil)
}
