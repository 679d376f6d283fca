// Package fauxqs starts fauxqs, an emulator of AWS SQS that runs in Node, as a
// child process on 127.0.0.1 and a free port.
//
// It needs Node 20 or newer and the npm package fauxqs. In a clone of the project
// "npm ci --prefix testbed/fauxqs/testdata" installs the package.
package fauxqs

import (
	"bufio"
	"context"
	_ "embed" // the script
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"
)

// ErrNotInstalled is wrapped by the error of [Start] if Node or the npm package
// is missing.
var ErrNotInstalled = errors.New("fauxqs is not installed")

// closeTimeout is how long [Server.Close] waits before it kills the process.
// fauxqs keeps its state in memory, so that killing it loses nothing.
const closeTimeout = 5 * time.Second

// startTimeout bounds the start of the process. Node takes well under a second;
// a machine under a load of 10 takes a few.
const startTimeout = 30 * time.Second

//go:embed server.mjs
var script string

// Options are the options of [Start].
type Options struct {
	// Folder is the folder whose node_modules contains fauxqs. Empty means the
	// folder testbed/fauxqs/testdata of the clone that the program was built in.
	Folder string
}

// Server is a running fauxqs.
type Server struct {
	url     string
	command *exec.Cmd
	input   io.Closer // the process ends when its input ends

	closing sync.Once
	err     error // of Close
}

// Start starts a server. It serves the region us-east-1 and accepts any
// credentials. A nil o means the zero Options. The server runs until Close, or
// until the calling process ends.
func Start(o *Options) (*Server, error) {
	node, folder, err := find(o)
	if err != nil {
		return nil, err
	}
	// The process must live until Close, so no context ends it.
	command := exec.CommandContext(context.Background(), node, "--input-type=module", "--eval", script) //nolint:gosec // G204: node, and a script of this package
	said := &output{}
	command.Dir, command.Stderr = folder, said
	input, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("fauxqs: %w", err)
	}
	kill := time.AfterFunc(startTimeout, func() { _ = command.Process.Kill() })
	line, err := bufio.NewReader(out).ReadString('\n')
	kill.Stop()
	s := &Server{url: strings.TrimSpace(line), command: command, input: input}
	if err != nil {
		_ = s.Close() // what node said explains more
		return nil, fmt.Errorf("fauxqs did not start: %s", said.cause())
	}
	return s, nil
}

// URL returns the address, such as "http://127.0.0.1:40123".
func (s *Server) URL() string { return s.url }

// Close ends the process and waits for its end, 5 seconds at most. A second call
// returns the same error.
func (s *Server) Close() error {
	s.closing.Do(func() {
		_ = s.input.Close()
		kill := time.AfterFunc(closeTimeout, func() { _ = s.command.Process.Kill() })
		defer kill.Stop()
		if err := s.command.Wait(); err != nil {
			s.err = fmt.Errorf("fauxqs ended with an error: %w", err)
		}
	})
	return s.err
}

// find returns the path of node and the folder in which fauxqs is installed.
func find(o *Options) (node, folder string, err error) {
	if o != nil {
		folder = o.Folder
	}
	if folder == "" {
		_, file, _, _ := runtime.Caller(0)
		folder = filepath.Join(filepath.Dir(file), "testdata")
	}
	if _, err := os.Stat(filepath.Join(folder, "node_modules", "fauxqs")); err != nil { //nolint:gosec // G703: the caller chooses the folder
		return "", "", fmt.Errorf("%w in %s: run npm ci --prefix testbed/fauxqs/testdata in a clone of the project, or npm install fauxqs in another folder and name that folder", ErrNotInstalled, folder)
	}
	if node, err = exec.LookPath("node"); err != nil {
		return "", "", fmt.Errorf("%w: it needs node (20 or newer) on the PATH", ErrNotInstalled)
	}
	return node, folder, nil
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
