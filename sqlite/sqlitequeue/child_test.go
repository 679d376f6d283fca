package sqlitequeue_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

// Tests that need other processes run this binary again in one of these roles.
// A role reads its orders from standard input, reports on standard output, and
// ends when its input ends.
var roles = map[string]func(in io.Reader, out io.Writer, args []string) error{
	"worker":   workerRole,
	"broker":   brokerRole,
	"producer": producerRole,
	"consumer": consumerRole,
}

const roleVariable = "SQLITEQUEUE_TEST_ROLE"

func TestMain(m *testing.M) {
	role, ok := roles[os.Getenv(roleVariable)]
	if !ok {
		os.Exit(m.Run())
	}
	if err := role(os.Stdin, os.Stdout, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, os.Getenv(roleVariable)+":", err)
		os.Exit(1)
	}
}

// process is a running role.
type process struct {
	tb     testing.TB
	cmd    *exec.Cmd
	in     io.WriteCloser
	lines  *bufio.Scanner
	stderr lockedBuilder
	once   sync.Once
}

type lockedBuilder struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *lockedBuilder) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuilder) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// command returns the command of a role.
func command(role string, args ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	return cmd, nil
}

// start starts a role. prepare may change the command before.
func start(tb testing.TB, role string, prepare func(*exec.Cmd), args ...string) *process {
	tb.Helper()
	cmd, err := command(role, args...)
	if err != nil {
		tb.Fatal(err)
	}
	p := &process{tb: tb, cmd: cmd}
	p.cmd.Stderr = &p.stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		tb.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	p.lines = bufio.NewScanner(out)
	p.lines.Buffer(nil, 64<<20)
	if prepare != nil {
		prepare(p.cmd)
	}
	if err := p.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { p.kill() })
	return p
}

// say writes one line to the process.
func (p *process) say(format string, args ...any) {
	p.tb.Helper()
	if _, err := fmt.Fprintf(p.in, format+"\n", args...); err != nil {
		p.tb.Fatalf("writing to a process: %v; it said: %s", err, p.stderr.String())
	}
}

// line reads one line from the process.
func (p *process) line() string {
	p.tb.Helper()
	if !p.lines.Scan() {
		p.tb.Fatalf("a process ended (%v): %s", p.lines.Err(), p.stderr.String())
	}
	return p.lines.Text()
}

// stop ends the input and waits for a clean end.
func (p *process) stop() {
	p.tb.Helper()
	p.once.Do(func() {
		_ = p.in.Close()
		for p.lines.Scan() {
		}
		if err := p.cmd.Wait(); err != nil {
			p.tb.Errorf("a process: %v: %s", err, p.stderr.String())
		}
	})
}

// kill ends the process with SIGKILL.
func (p *process) kill() {
	p.once.Do(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	})
}
