package cli_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// process is a qrt that runs while the test does something else.
type process struct {
	t   *testing.T
	cmd *exec.Cmd
	out *bufio.Reader
	err strings.Builder
}

// start starts qrt in the background.
func (s *shell) start(args ...string) *process {
	s.t.Helper()
	p := &process{t: s.t, cmd: exec.CommandContext(s.t.Context(), s.qrt, args...)}
	p.cmd.Dir, p.cmd.Env, p.cmd.Stderr = s.home, s.env, &p.err
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	p.out = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	return p
}

// line returns the next line of standard output, as JSON.
func (p *process) line(into any) {
	p.t.Helper()
	text, err := p.out.ReadBytes('\n')
	if err != nil {
		p.t.Fatalf("no further line: %v; standard error: %s", err, p.err.String())
	}
	if err := json.Unmarshal(text, into); err != nil {
		p.t.Fatalf("%q: %v", text, err)
	}
}

// stop tells it to end, and returns what was left on standard output. It must end
// with 0, and soon.
func (p *process) stop(signal os.Signal) string {
	p.t.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil {
		p.t.Fatal(err)
	}
	late := time.AfterFunc(3*time.Minute, func() { _ = p.cmd.Process.Kill() })
	defer late.Stop()
	rest, err := io.ReadAll(p.out)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		p.t.Fatalf("%v; standard error: %s", err, p.err.String())
	}
	return string(rest)
}

// must runs a command that must succeed.
func (s *shell) must(command string) string {
	s.t.Helper()
	out := s.run(command)
	if strings.Contains(out, "\n[exit ") || strings.HasPrefix(out, "[exit ") {
		s.t.Fatalf("$ %s\n%s", command, out)
	}
	return out
}

// TestReceiveFollow: one terminal sends, another receives, until it is told to
// end: then in good order.
func TestReceiveFollow(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.must("echo one | qrt send q --id m1") // receive makes no queue
	p := s.start("receive", "q", "--follow", "--json")
	s.must("echo two | qrt send q --id m2")
	for _, want := range []string{"m1", "m2"} {
		var m struct {
			MessageID string `json:"message_id"`
		}
		if p.line(&m); m.MessageID != want {
			t.Errorf("received %q, want %q", m.MessageID, want)
		}
	}
	if rest := p.stop(syscall.SIGTERM); rest != "" {
		t.Errorf("more came: %s", rest)
	}
	if out := s.must("qrt stats --json"); !strings.Contains(out, `"ready":0,"in_flight":0`) {
		t.Errorf("left behind: %s", out)
	}
}

// TestReceiveFollowSessions: what follows every session leaves one that is idle, and what
// follows one stays with it for longer than its lock, which no other receiver gets
// meanwhile.
func TestReceiveFollowSessions(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.env = append(s.env, "QRT_BROKER=sqlite:sessions.db?lock=1s")
	for _, id := range []string{"m1", "m2", "m3"} {
		s.must("echo x | qrt send q --session " + id + " --id " + id)
	}
	next := func(p *process) string {
		var m struct {
			MessageID string `json:"message_id"`
		}
		p.line(&m)
		return m.MessageID
	}
	every := s.start("receive", "q", "--next-session", "--follow", "--wait", "50ms", "--json")
	for _, want := range []string{"m1", "m2", "m3"} {
		if got := next(every); got != want {
			t.Errorf("received %q, want %q", got, want)
		}
	}
	s.must("echo x | qrt send q --session m1 --id m4") // a session that it has left
	if got := next(every); got != "m4" {
		t.Errorf("received %q, want m4", got)
	}
	if rest := every.stop(syscall.SIGTERM); rest != "" {
		t.Errorf("more came: %s", rest)
	}

	s.must("echo x | qrt send q --session kept --id m5")
	one := s.start("receive", "q", "--session", "kept", "--follow", "--wait", "5s", "--json")
	if got := next(one); got != "m5" {
		t.Errorf("received %q, want m5", got)
	}
	// Three locks long: the wait of this command is the clock.
	if out := s.run("qrt receive q --session kept --wait 3s"); !strings.Contains(out, "held by another receiver") {
		t.Errorf("another receiver was given the session that is in use: %s", out)
	}
	s.must("echo x | qrt send q --session kept --id m6")
	if got := next(one); got != "m6" {
		t.Errorf("received %q, want m6", got)
	}
	if rest := one.stop(syscall.SIGTERM); rest != "" || one.err.Len() > 0 {
		t.Errorf("more came: %s; standard error: %s", rest, one.err.String())
	}
}

// TestEmulator: the emulator serves other processes until it is told to end.
func TestEmulator(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	p := s.start("emulator", "servicebus", "--queue", "orders", "--queue", "events:sessions", "--json")
	var e struct {
		Address          string   `json:"address"`
		ConnectionString string   `json:"connection_string"`
		Queues           []string `json:"queues"`
	}
	p.line(&e)
	if len(e.Queues) != 2 || !strings.HasPrefix(e.Address, "127.0.0.1:") {
		t.Errorf("emulator %+v, want two queues on 127.0.0.1", e)
	}
	s.env = append(s.env, "CONNECTION="+e.ConnectionString, "QRT_BROKER=sb:///?connection=CONNECTION")
	s.must("qrt keys new --id k1")
	s.must("echo hello | qrt send orders --id m1")
	if out := s.must("qrt peek orders --json"); !strings.Contains(out, `"message_id":"m1"`) {
		t.Errorf("peek: %s", out)
	}
	if out := s.must("qrt receive orders --json"); !strings.Contains(out, `"encrypted":true`) {
		t.Errorf("receive: %s", out)
	}
	out := s.run("qrt doctor orders --probe orders --json")
	if !strings.Contains(out, "a message was sent, received and completed, sealed") || strings.Contains(out, "SharedAccessKey") {
		t.Errorf("doctor: %s", out)
	}
	if out := s.run("echo hello | qrt send nosuch"); !strings.HasSuffix(out, "[exit 3]\n") {
		t.Errorf("a queue that is not there: %s", out)
	}
	s.env = append(s.env, "QRT_BROKER=sb:///?connection=CONNECTION&sessions=true")
	s.must("echo hello | qrt send events --session s")
	if out := s.must("qrt receive events --json"); !strings.Contains(out, `"session_id":"s"`) {
		t.Errorf("receive from a session: %s", out)
	}
	// A connection string is for the environment: every process sees arguments.
	s.env = append(s.env, "QRT_BROKER="+e.ConnectionString)
	s.must("echo hello | qrt send orders")
	if out := s.must("qrt receive orders"); strings.Contains(out, "SharedAccessKey") {
		t.Errorf("the connection string is shown: %s", out)
	}
	p.stop(os.Interrupt)
}

// TestRedriveInterrupted: an interrupt ends a redrive between two messages, says how
// far it came, and leaves each in one place.
func TestRedriveInterrupted(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.must("printf 'a\\nb\\nc\\nd\\ne\\nf\\n' | qrt send q --lines --plaintext")
	s.run("qrt receive q --all --policy reject")
	p := s.start("dlq", "redrive", "q", "--yes", "--rate", "1")
	var at struct {
		Queues []struct {
			Ready       int `json:"ready"`
			DeadLetters int `json:"dead_letters"`
		} `json:"queues"`
	}
	look := func() (ready, dead int) {
		if err := json.Unmarshal([]byte(s.must("qrt stats q --json")), &at); err != nil {
			t.Fatal(err)
		}
		return at.Queues[0].Ready, at.Queues[0].DeadLetters
	}
	for tries, dead := 0, 6; dead == 6 && tries < 1000; tries++ {
		_, dead = look()
	}
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	err := p.cmd.Wait()
	ready, dead := look()
	if want := fmt.Sprintf("qrt: interrupted (%d were sent back before, 0 refused, 0 failed)\n", ready); err == nil || p.err.String() != want || ready == 0 || dead == 0 || ready+dead != 6 {
		t.Errorf("%d ready, %d dead, %v: %s, want %s", ready, dead, err, p.err.String(), want)
	}
}
