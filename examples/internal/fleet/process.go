package fleet

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
)

// Process is one program. It can be started again after it has ended; it then
// listens where it did before, unless something else has taken the port meanwhile.
type Process struct {
	Name string

	argv []string
	out  func(line []byte) // of standard output
	logs io.Writer         // nil means none
	fell func()            // it has ended by itself

	mu        sync.Mutex // guards what follows
	env       []string
	cmd       *exec.Cmd
	addresses map[string]string // by the names in the log
	ready     chan struct{}     // closed when the program says so
	gone      chan struct{}     // closed when the process has ended and all it said is read
	told      bool              // to end
	err       error             // of its end
	tail      []string          // the last lines of its log
}

// maxTail is how many lines of a log an error shows.
const maxTail = 20

// Start starts the program and waits until it is ready.
func (p *Process) Start(ctx context.Context) error {
	err := p.start(ctx)
	if err != nil && strings.Contains(p.Tail(), syscall.EADDRINUSE.Error()) {
		// Any connection of this machine may have been given the port.
		p.mu.Lock()
		clear(p.addresses)
		p.mu.Unlock()
		err = p.start(ctx)
	}
	return err
}

func (p *Process) start(ctx context.Context) error {
	cmd := exec.Command(p.argv[0], p.argv[1:]...) //nolint:gosec,noctx // G204: our own programs; they end with Stop or Kill
	ready, gone := make(chan struct{}), make(chan struct{})
	p.mu.Lock()
	cmd.Env = append([]string(nil), p.env...)
	for name, variable := range listens {
		if a := p.addresses[name]; a != "" {
			cmd.Env = append(cmd.Env, variable+"="+a)
		}
	}
	p.cmd, p.ready, p.gone, p.told, p.tail, p.err = cmd, ready, gone, false, nil, nil
	p.mu.Unlock()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		close(gone)
		return fmt.Errorf("fleet: starting %s: %w", p.Name, err)
	}
	var readers sync.WaitGroup
	readers.Go(func() { lines(stdout, p.out) })
	readers.Go(func() { lines(stderr, p.logged) })
	go func() {
		readers.Wait() // before Wait, which closes the pipes
		err := cmd.Wait()
		p.mu.Lock()
		p.err = err
		p.mu.Unlock()
		close(gone)
		if p.Fell() != nil {
			p.fell()
		}
	}()
	select {
	case <-ready:
		return nil
	case <-gone:
		return fmt.Errorf("fleet: %s ended before it was ready: %w; it said:\n%s", p.Name, p.end(), p.Tail())
	case <-ctx.Done():
		p.Kill()
		return fmt.Errorf("fleet: %s was not ready in time: %w; it said:\n%s", p.Name, ctx.Err(), p.Tail())
	}
}

// listens are the variables for the addresses of the log.
var listens = map[string]string{"admin": "ADMIN_LISTEN", "webhooks": "LISTEN"}

// lines reads until the other end is closed.
func lines(r io.Reader, f func([]byte)) {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		f(s.Bytes())
	}
	_, _ = io.Copy(io.Discard, r) // after a line without end: the process must not block
}

// logged takes in one line of the log.
func (p *Process) logged(line []byte) {
	if p.logs != nil {
		_, _ = p.logs.Write(append([]byte(p.Name+" "), append(line, '\n')...))
	}
	var l struct{ Msg, Name, Address string }
	known := json.Unmarshal(line, &l) == nil
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tail = append(p.tail[max(0, len(p.tail)-maxTail+1):], string(line))
	switch {
	case !known:
	case l.Msg == "Listening":
		p.addresses[l.Name] = l.Address
	case l.Msg == "Ready":
		if !closed(p.ready) {
			close(p.ready)
		}
	}
}

// Setenv changes a setting, "NAME=value", from the next Start on.
func (p *Process) Setenv(setting string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.env = append(p.env, setting) // the last of a name counts
}

// Tail returns the last lines of the log.
func (p *Process) Tail() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.tail, "\n")
}

// URL returns the address of a server of the process: "webhooks" or "admin".
func (p *Process) URL(name string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return "http://" + p.addresses[name]
}

// Fell returns an error if the program was ready and has ended by itself since.
func (p *Process) Fell() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.told || p.cmd == nil || !closed(p.ready) || !closed(p.gone) {
		return nil
	}
	return fmt.Errorf("fleet: %s ended by itself (%s)", p.Name, how(p.err))
}

// state says what became of the program, and the end of what it said.
func (p *Process) state() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	is := "runs"
	switch {
	case p.cmd == nil:
		return p.Name + " was never started\n"
	case closed(p.gone):
		is = fmt.Sprintf("has ended (%s)", how(p.err))
	case !closed(p.ready):
		is = "is not ready"
	}
	return p.Name + " " + is + "; it said last:\n" + strings.Join(p.tail, "\n") + "\n"
}

// how names the end of a process.
func how(err error) string {
	if err == nil {
		return "in order"
	}
	return err.Error()
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (p *Process) end() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// ending returns the process, which is now told to end, and the channel that is closed at its
// end; nil if it was never started.
func (p *Process) ending() (*os.Process, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil || p.cmd.Process == nil {
		return nil, nil
	}
	p.told = true
	return p.cmd.Process, p.gone
}

// Stop asks the program to end, and waits until it has. It fails if that was
// not orderly. A program that has ended in order before is no error.
func (p *Process) Stop(ctx context.Context) error {
	process, gone := p.ending()
	if process == nil {
		return nil
	}
	if err := process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("fleet: stopping %s: %w", p.Name, err)
	}
	select {
	case <-gone:
	case <-ctx.Done():
		p.Kill()
		return fmt.Errorf("fleet: %s did not end in time: %w; it said:\n%s", p.Name, ctx.Err(), p.Tail())
	}
	if err := p.end(); err != nil {
		return fmt.Errorf("fleet: %s ended with %w; it said:\n%s", p.Name, err, p.Tail())
	}
	return nil
}

// Kill ends the process as a power cut would (SIGKILL), and waits until it is
// gone.
func (p *Process) Kill() {
	process, gone := p.ending()
	if process == nil {
		return
	}
	_ = process.Kill() // it may be gone already
	<-gone
}
