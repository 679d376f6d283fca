package sbemulator_test

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestRhea drives the emulator with an AMQP client that has nothing in common
// with the emulator or with Go's: what two codecs have wrong alike, the third
// shows.
func TestRhea(t *testing.T) {
	const dir = "testdata/rhea"
	node, err := exec.LookPath("node")
	if err != nil {
		missing(t, "Node.js 20 (node is not in PATH)")
	}
	if _, err := os.Stat(dir + "/node_modules/rhea"); err != nil {
		missing(t, "npm package rhea (run: npm ci --prefix testbed/sbemulator/"+dir+")")
	}
	s := start(t, nil, nil)
	if err := s.CreateQueue("plain", nil); err != nil {
		t.Fatal(err)
	}
	o := sessional()
	o.LockDuration = 0
	if err := s.CreateQueue("sessions", o); err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, node, "client.js", host, port)
	cmd.Dir = dir
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v after the steps %q\n%s", err, strings.Fields(out.String()), errs.String())
	}
	want := "claim send_and_accept every_settlement management batch many_messages drain refusals sessions"
	if got := strings.Join(strings.Fields(out.String()), " "); got != want {
		t.Errorf("steps %s\nwant  %s", got, want)
	}
	for _, path := range []string{"plain", "plain/$DeadLetterQueue", "sessions"} {
		wantStored(t, s, path, 0)
	}
	if st, err := s.Stats("sessions"); err != nil || st.Sessions != 0 || st.Waiting != 0 {
		t.Errorf("stats %+v, %v", st, err)
	}
}

// missing skips a test whose peer is not installed, where that is no failure.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("QRT_REQUIRE_PEERS") == "1" {
		t.Fatalf("%s is missing", what)
	}
	t.Skipf("%s is missing", what)
}
