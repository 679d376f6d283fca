package cli_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestOutputFull: a message that could not be printed was not received, in any format,
// and a command that could not print its result does not exit with 0.
func TestOutputFull(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("there is no /dev/full")
	}
	s := newShell(t)
	s.must("qrt keys new --id k1")
	s.must("echo one | qrt send q --id m1")
	for _, form := range []string{"--json", "--body", "", "--all", "--follow --json"} {
		out := s.run("qrt receive q " + form + " > /dev/full")
		if !strings.HasSuffix(out, "[exit 1]\n") || !strings.Contains(out, "standard output: ") || !strings.Contains(out, "no space left") {
			t.Errorf("receive %s: %s", form, out)
		}
		if out := s.must("qrt stats --json"); !strings.Contains(out, `"ready":1,"in_flight":0`) {
			t.Errorf("after receive %s: %s", form, out)
		}
	}
	for _, command := range []string{"peek q", "stats --json", "keys audit", "keys list --json", "version", "--help", "inspect --help"} {
		if out := s.run("qrt " + command + " > /dev/full"); !strings.HasSuffix(out, "[exit 1]\n") {
			t.Errorf("%s: %s", command, out)
		}
	}
	if out := s.must("qrt receive q --json"); !strings.Contains(out, `"message_id":"m1"`) {
		t.Errorf("received in the end: %s", out)
	}
}

// TestOutputUnread: if its output is closed, as by head, a command ends, says nothing,
// and gives back the messages that it holds.
func TestOutputUnread(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.must("qrt keys new --id k1")
	s.must("printf 'a\\nb\\nc\\n' | qrt send q --lines")
	for _, args := range [][]string{
		{"peek", "q"}, {"peek", "q", "--json"}, {"stats"}, {"receive", "q", "--json"}, {"receive", "q", "--all", "--body"}, {"receive", "q", "--follow"},
		{"--help"}, {"send", "--help"}, {"help", "urls"}, {"completion", "bash"},
		{"demo", "--broker", "mem://", "--messages", "60", "--attempts", "1"},
	} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		var said strings.Builder
		c := exec.CommandContext(t.Context(), s.qrt, args...)
		c.Dir, c.Env, c.Stdout, c.Stderr = s.home, s.env, w, &said
		err = c.Run()
		_ = w.Close() // the process has its own
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 141 || said.Len() > 0 {
			t.Errorf("%v: %v, %q", args, err, said.String())
		}
		if out := s.must("qrt stats --json"); !strings.Contains(out, `"ready":3,"in_flight":0`) {
			t.Errorf("after %v: %s", args, out)
		}
	}
}

// TestInterruptedInput: an interrupt ends a command that waits for its input, and
// nothing of that is sent by halves: whole lines that came before are.
func TestInterruptedInput(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	for _, args := range [][]string{{"send", "q"}, {"send", "q", "--lines"}, {"inspect"}} {
		var out, said strings.Builder
		c := exec.CommandContext(t.Context(), s.qrt, append(args, "--json", "--log", "debug")...)
		c.Dir, c.Env, c.Stdout, c.Stderr = s.home, s.env, &out, &said
		in, err := c.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		// More than the pipe holds: once it is written the command reads.
		if _, err := in.Write(bytes.Repeat([]byte("x"), 256<<10)); err != nil {
			t.Fatal(err)
		}
		if err := c.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		late := time.AfterFunc(3*time.Minute, func() { _ = c.Process.Kill() })
		err = c.Wait()
		late.Stop()
		_ = in.Close() // it is closed by now
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(said.String(), `"code":"interrupted"`) || out.Len() > 0 {
			t.Errorf("%v: %v, %q, %q", args, err, out.String(), said.String())
		}
	}
	if out := s.run("qrt stats --json"); strings.Contains(out, `"ready":1`) {
		t.Errorf("half a message was sent: %s", out)
	}
}
