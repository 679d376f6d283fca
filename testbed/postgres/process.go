package postgres

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// running is one process of a server, or of a pooler.
type running struct {
	command *exec.Cmd
	input   io.Closer // the server ends when its input ends, so also with this process
	ended   chan struct{}
	err     error // of the process, set before ended is closed

	// silent is closed when no process has the log open: each one of the server has
	// it, so they all have ended.
	silent chan struct{}
}

// Signals that end a server at once. Nothing is written first, neither to the disk nor to a
// standby: either may be slow, and the files are removed next.
const (
	quitServer = "QUIT" // postgres ends its processes and removes its shared memory
	killPooler = "KILL" // pgbouncer has nothing to remove; from 1.23 on it waits at TERM for its clients
)

// start runs a program, and returns when it logs a line with the text ready. signal ends it.
func start(folder, signal, ready string, line ...string) (*running, error) {
	// The shell ends the program when its own input ends.
	script := `exec 3<&0; "$@" </dev/null & server=$!; (cat >/dev/null; kill -` + signal + ` $server 2>/dev/null) <&3 & wait $server`
	command := exec.Command("sh", append([]string{"-c", script, "sh"}, line...)...) //nolint:gosec,noctx // G204: a test's own server, which Kill and Close end
	command.Dir = folder
	if err := unprivileged(command); err != nil {
		return nil, err
	}
	input, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	log, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	command.Stderr = write
	if err := command.Start(); err != nil {
		_ = log.Close()
		_ = write.Close()
		return nil, err
	}
	_ = write.Close() // the child has its own
	r := &running{command: command, input: input, ended: make(chan struct{}), silent: make(chan struct{})}
	said := make(chan string, 1) // "" once it is ready, or the end of the log
	go func() { readLog(log, ready, said); close(r.silent) }()
	go func() { r.err = command.Wait(); close(r.ended) }()
	timeout := time.NewTimer(startTimeout)
	defer timeout.Stop()
	name := filepath.Base(line[0])
	select {
	case text := <-said:
		if text == "" {
			return r, nil
		}
		_ = input.Close()
		<-r.ended
		return nil, fmt.Errorf("%s did not start: %s", name, text)
	case <-timeout.C:
		_ = input.Close()
		return nil, fmt.Errorf("%s did not accept connections within %s", name, startTimeout)
	}
}

// readLog reads a log to its end. It reports "" at the line with the text ready, and the
// last lines if none has it.
func readLog(log io.ReadCloser, ready string, said chan<- string) {
	defer func() { _ = log.Close() }()
	var last []string
	found := false
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		last = append(last[max(0, len(last)-5):], lines.Text())
		if !found && strings.Contains(lines.Text(), ready) {
			found = true
			said <- ""
		}
	}
	if !found {
		said <- "its log ends with: " + strings.Join(last, " | ")
	}
	_, _ = io.Copy(io.Discard, log) // after a longer line: silent means that no process writes any more
}

// stop ends a process and waits until all of its processes are gone, after closeTimeout by
// SIGKILL.
func (r *running) stop() {
	_ = r.input.Close()
	kill := time.AfterFunc(closeTimeout, func() { killAll(r.command) })
	defer kill.Stop()
	<-r.ended
	<-r.silent // the folder is removed next
}
