package sbemulator_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue/testbed/sbemulator"
)

// TestAzureJS drives the emulator with Microsoft's JavaScript client, which asks for
// other things than the one for Go: answers by the name of a link, message IDs,
// session filters as plain strings, and errors that it knows by their text.
func TestAzureJS(t *testing.T) {
	const dir = "testdata/azure-js"
	node, err := exec.LookPath("node")
	if err != nil {
		missing(t, "Node.js 20 (node is not in PATH)")
	}
	if _, err := os.Stat(dir + "/node_modules/@azure/service-bus"); err != nil {
		missing(t, "npm package @azure/service-bus (run: npm ci --prefix testbed/sbemulator/"+dir+")")
	}
	s := start(t, nil, nil)
	for name, o := range map[string]*sbemulator.QueueOptions{
		"plain": nil, "sessions": {RequiresSession: true}, "twice": {MaxDeliveryCount: 2},
	} {
		if err := s.CreateQueue(name, o); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, node, "client.js", s.ConnectionString())
	cmd.Dir = dir
	var errs bytes.Buffer
	cmd.Stderr = &errs
	in := must[io.WriteCloser](t)(cmd.StdinPipe())
	out := must[io.ReadCloser](t)(cmd.StdoutPipe())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	steps := serveSteps(t, s, out, in)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v after the steps %q\n%s", err, steps, errs.String())
	}
	want := "send_and_complete message_without_id bodies_of_every_kind batches abandon defer dead_letters" +
		" too_many_deliveries receive_and_delete schedule_and_cancel peek lock_renewal_and_loss sessions" +
		" no_next_session session_lock_renewal_and_loss refusals thousand_messages"
	if got := strings.Join(steps, " "); got != want {
		t.Errorf("steps %s\nwant  %s", got, want)
	}
	for _, path := range []string{"plain", "plain/$DeadLetterQueue", "twice", "twice/$DeadLetterQueue", "sessions"} {
		wantStored(t, s, path, 0)
	}
	if errs.Len() > 0 {
		t.Logf("%s", errs.String())
	}
}

// serveSteps reads the names of the steps that passed, up to the end of the output,
// and moves the emulator's clock when the script asks for it.
func serveSteps(t *testing.T, s *sbemulator.Server, out io.Reader, in io.Writer) []string {
	t.Helper()
	var steps []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		seconds, asked := strings.CutPrefix(lines.Text(), "advance ")
		if !asked {
			steps = append(steps, lines.Text())
			continue
		}
		n, err := strconv.Atoi(seconds)
		if err != nil {
			t.Errorf("the script asks for %q", lines.Text())
		}
		if err := s.Advance(time.Duration(n) * time.Second); err != nil {
			t.Error(err)
		}
		if _, err := fmt.Fprintln(in, "done"); err != nil {
			t.Errorf("the script does not listen: %v", err)
		}
	}
	return steps
}
