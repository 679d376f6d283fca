// Package nodepeer runs a server of an npm package in Node, as a child process.
package nodepeer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// closeTimeout is how long [Process.Close] waits before it kills the process.
const closeTimeout = time.Minute

// startTimeout bounds the start of the process. Node takes well under a second;
// a machine under a load of 10 takes a few.
const startTimeout = 3 * time.Minute

// Config says what to run.
type Config struct {
	// Package is the npm package. Folder has it in its node_modules.
	Package, Folder string
	// Script is an ECMAScript module. It prints its URL as its first line,
	// ignores signals, and ends when its standard input ends.
	Script string
	// Args follow in process.argv.
	Args []string
	// Missing is wrapped by the error of Start if Node or the package is
	// missing. Install is the command that installs it.
	Missing error
	Install string
}

// Process is a running server.
type Process struct {
	url     string
	name    string
	command *exec.Cmd
	input   io.Closer     // the process ends when its input ends
	said    *output       // on standard error
	silent  chan struct{} // closed at the end of its standard output

	closing sync.Once
	err     error // of Close
}

// Start starts a server. It runs until Close or Kill, or until the calling process
// ends.
func Start(c *Config) (*Process, error) {
	if _, err := os.Stat(filepath.Join(c.Folder, "node_modules", c.Package)); err != nil {
		return nil, fmt.Errorf("%w in %s: run %s in a clone of the project, or npm install %s in another folder and name that folder", c.Missing, c.Folder, c.Install, c.Package)
	}
	node, err := exec.LookPath("node")
	if err != nil {
		return nil, fmt.Errorf("%w: it needs node (20 or newer) on the PATH", c.Missing)
	}
	// The process must live until Close, so no context ends it.
	args := append([]string{"--input-type=module", "--eval", c.Script, "--"}, c.Args...)
	command := exec.CommandContext(context.Background(), node, args...) //nolint:gosec // G204: node, and a script of this module
	said := &output{}
	command.Dir, command.Stderr = c.Folder, said
	input, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", c.Package, err)
	}
	kill := time.AfterFunc(startTimeout, func() { _ = command.Process.Kill() })
	reader := bufio.NewReader(out)
	line, err := reader.ReadString('\n')
	kill.Stop()
	p := &Process{url: strings.TrimSpace(line), name: c.Package, command: command, input: input, said: said, silent: make(chan struct{})}
	go func() {
		_, _ = io.Copy(io.Discard, reader) // node stops at a pipe that is full
		close(p.silent)
	}()
	if err != nil {
		_ = p.Close() // what node said explains more
		return nil, fmt.Errorf("%s did not start: %s", c.Package, said.cause())
	}
	return p, nil
}

// URL returns the address, such as "http://127.0.0.1:40123".
func (p *Process) URL() string { return p.url }

// Close ends the process and waits for its end, a minute at most. A second call
// returns the same error.
func (p *Process) Close() error {
	p.closing.Do(func() {
		_ = p.input.Close()
		kill := time.AfterFunc(closeTimeout, func() { _ = p.command.Process.Kill() })
		defer kill.Stop()
		<-p.silent // before Wait, which closes the pipe
		if err := p.command.Wait(); err != nil {
			p.err = fmt.Errorf("%s ended with an error: %w: %s", p.name, err, p.said.cause())
		}
	})
	return p.err
}

// Kill ends the process at once, as a crash does, and waits for its end. Close
// returns nil afterwards.
func (p *Process) Kill() error {
	var err error
	p.closing.Do(func() {
		err = p.command.Process.Kill()
		<-p.silent
		var exit *exec.ExitError
		if werr := p.command.Wait(); !errors.As(werr, &exit) {
			err = errors.Join(err, werr)
		}
		_ = p.input.Close() // Wait has closed it
	})
	return err
}

// output keeps the first bytes of what node writes to standard error.
type output struct {
	mu   sync.Mutex // guards text
	text strings.Builder
}

// outputLimit is enough for the error with which node ends.
const outputLimit = 16 << 10

// Write never fails, so that node never blocks.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(p[:min(len(p), outputLimit-o.text.Len())])
	return len(p), nil
}

// cause returns the line that names the error. Node prints source lines before it
// and a stack after it.
func (o *output) cause() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	for line := range strings.Lines(o.text.String()) {
		if strings.Contains(line, "Error") {
			return strings.TrimSpace(line)
		}
	}
	return "node printed no error"
}
