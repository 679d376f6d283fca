// Package redispeer starts Redis servers for tests, as child processes on 127.0.0.1 and a
// free port, each with a temporary folder.
//
// It needs the program redis-server, version 6.2 or newer, in the path.
package redispeer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/queue-runtime/queue/testbed/internal/freeport"
)

// ErrNotInstalled is wrapped by the error of [Start] if redis-server is missing.
var ErrNotInstalled = errors.New("redis-server is not installed")

const (
	// startTimeout bounds the start of a server, which takes some milliseconds; a machine
	// under load takes more, and so does reading a long append-only file.
	startTimeout = time.Minute
)

// clusterBus is how much higher the port is that a node of a cluster has for the others
// (redis.conf, cluster-port).
const clusterBus = 10000

// Options are the options of [Start].
type Options struct {
	// Settings are arguments of redis-server in the form of its configuration file, such
	// as {"appendonly": "yes"}. Without any the server keeps everything in memory.
	Settings map[string]string
	// Sentinel starts a Sentinel instead of a server, with these lines as its
	// configuration.
	Sentinel []string
}

// Server is a Redis server. Its methods must not be called concurrently.
type Server struct {
	folder  string
	port    int
	release func() // of the port
	options Options
	run     *running // nil while the server does not run
}

// running is one process of the server.
type running struct {
	command *exec.Cmd
	input   io.Closer // the server ends when its input ends, so also with this process
	ended   chan struct{}
}

// Start starts a server. A nil o means the zero Options. The server runs until Close, or
// until the calling process ends.
func Start(o *Options) (*Server, error) {
	s := &Server{}
	if o != nil {
		s.options = *o
	}
	if _, err := exec.LookPath("redis-server"); err != nil {
		return nil, fmt.Errorf("%w: install Debian's package redis-server, or run .ci/peers", ErrNotInstalled)
	}
	var others []int
	if s.options.Settings["cluster-enabled"] == "yes" {
		others = append(others, clusterBus)
	}
	var err error
	if s.port, s.release, err = freeport.Take(others...); err != nil {
		return nil, err
	}
	if s.folder, err = os.MkdirTemp("", "redis-"); err != nil {
		s.release()
		return nil, err
	}
	if err := s.Restart(); err != nil {
		s.release()
		return nil, errors.Join(err, os.RemoveAll(s.folder))
	}
	return s, nil
}

// Port returns the server's port.
func (s *Server) Port() int { return s.port }

// Address returns the server's host and port.
func (s *Server) Address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// URL returns the URL of the server's first database.
func (s *Server) URL() string { return "redis://" + s.Address() + "/0" }

// Folder returns the folder of the server's files.
func (s *Server) Folder() string { return s.folder }

func (s *Server) arguments() ([]string, error) {
	base := []string{"--port", strconv.Itoa(s.port), "--bind", "127.0.0.1", "--dir", s.folder}
	if s.options.Sentinel != nil {
		path := filepath.Join(s.folder, "sentinel.conf")
		err := os.WriteFile(path, []byte(strings.Join(s.options.Sentinel, "\n")+"\n"), 0o600)
		return append([]string{path, "--sentinel"}, base...), err
	}
	settings := map[string]string{
		"save": "", "appendonly": "no", "repl-diskless-sync-delay": "0", "repl-diskless-sync": "yes", "repl-ping-replica-period": "1",
	}
	for name, value := range s.options.Settings {
		settings[name] = value
	}
	for name, value := range settings {
		base = append(base, "--"+name)
		if fields := strings.Fields(value); len(fields) > 1 {
			base = append(base, fields...)
		} else {
			base = append(base, value)
		}
	}
	return base, nil
}

// Restart starts the server again after [Server.Kill], on the same port with the same
// files, and returns when it accepts connections.
func (s *Server) Restart() error {
	if s.run != nil {
		return errors.New("the server runs")
	}
	arguments, err := s.arguments()
	if err != nil {
		return err
	}
	// The shell ends the server when its own input ends.
	const script = `exec 3<&0 2>&1; "$@" </dev/null & server=$!; (cat; kill -9 $server) <&3 >/dev/null 2>&1 & wait $server`
	command := exec.Command("sh", append([]string{"-c", script, "sh", "redis-server"}, arguments...)...) //nolint:gosec,noctx // G204: a test's own server, which Kill and Close end
	command.Dir = s.folder
	input, err := command.StdinPipe()
	if err != nil {
		return err
	}
	log, err := command.StdoutPipe()
	if err != nil {
		return err
	}
	if err := command.Start(); err != nil {
		return err
	}
	r := &running{command: command, input: input, ended: make(chan struct{})}
	ready := make(chan string, 1)
	go func() {
		readLog(log, ready)
		_ = command.Wait()
		close(r.ended)
	}()
	timeout := time.NewTimer(startTimeout)
	defer timeout.Stop()
	select {
	case text := <-ready:
		if text == "" {
			s.run = r
			return nil
		}
		_ = input.Close()
		<-r.ended
		return fmt.Errorf("redis-server did not start: %s", text)
	case <-timeout.C:
		_ = input.Close()
		<-r.ended
		return fmt.Errorf("redis-server did not accept connections within %s", startTimeout)
	}
}

// readLog reads the server's log to its end. It reports "" when the server accepts
// connections, and the last lines if it never does.
func readLog(log io.Reader, ready chan<- string) {
	var last []string
	said := false
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		last = append(last[max(0, len(last)-5):], line)
		if !said && (strings.Contains(line, "Ready to accept connections") || strings.Contains(line, "Sentinel ID is")) {
			said = true
			ready <- ""
		}
	}
	if !said {
		ready <- "its log ends with: " + strings.Join(last, " | ")
	}
	_, _ = io.Copy(io.Discard, log) // after a longer line: the server must not block
}

// Kill ends the server with SIGKILL, as a crash would, and waits until it is gone.
func (s *Server) Kill() error {
	if s.run == nil {
		return errors.New("the server does not run")
	}
	_ = s.run.input.Close() // the shell kills it
	<-s.run.ended
	s.run = nil
	return nil
}

// Close ends the server and removes its files.
func (s *Server) Close() error {
	if r := s.run; r != nil {
		s.run = nil
		_ = r.input.Close() // the shell kills it
		<-r.ended           // it may write to its folder until then, and so may a child that rewrites a file
	}
	s.release()
	return os.RemoveAll(s.folder)
}

// Do sends a command and returns the answer in the form of the protocol (RESP2), for
// tests that must not use a client library. Arguments have no spaces or line ends.
func (s *Server) Do(ctx context.Context, arguments ...string) (string, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", s.Address())
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	if t, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(t)
	}
	if _, err := fmt.Fprintf(c, "%s\r\n", strings.Join(arguments, " ")); err != nil {
		return "", err
	}
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "$") {
		return strings.TrimSpace(line), err
	}
	n, err := strconv.Atoi(strings.TrimSpace(line[1:]))
	if err != nil || n < 0 {
		return "", err
	}
	body := make([]byte, n)
	_, err = io.ReadFull(r, body)
	return string(body), err
}

// TB is the part of *testing.T that this package uses.
type TB interface {
	Helper()
	Fatal(args ...any)
	Skip(args ...any)
	Cleanup(func())
	Error(args ...any)
}

// shared is the server of a test binary.
var shared struct {
	once   sync.Once
	server *Server
	err    error
}

// Shared returns a server that is started once in a test binary. If Redis is not
// installed it skips the test, or fails it if QRT_REQUIRE_PEERS is 1. TestMain calls
// [StopShared] last.
func Shared(t TB) *Server {
	t.Helper()
	shared.once.Do(func() { shared.server, shared.err = Start(nil) })
	require(t, shared.err)
	return shared.server
}

// New starts a server for one test.
func New(t TB, settings map[string]string) *Server {
	t.Helper()
	s, err := Start(&Options{Settings: settings})
	require(t, err)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Replica starts a replica of a server for one test, and returns when it has what its
// primary has.
func Replica(t TB, of *Server, settings map[string]string) *Server {
	t.Helper()
	all := map[string]string{"replicaof": "127.0.0.1 " + strconv.Itoa(of.port)}
	for name, value := range settings {
		all[name] = value
	}
	s := New(t, all)
	if err := s.Await("replication", "master_link_status:up"); err != nil {
		t.Fatal(err)
	}
	if err := of.Await("replication", "port="+strconv.Itoa(s.port)+",state=online"); err != nil {
		t.Fatal(err)
	}
	return s
}

// Await returns when a section of the server's INFO contains a text.
func (s *Server) Await(section, text string) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		got, err := s.Do(ctx, "INFO", section)
		if err == nil && slices.ContainsFunc(strings.Split(got, "\r\n"), func(line string) bool { return strings.Contains(line, text) }) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("INFO %s has no %q, but: %s (%w)", section, text, got, errors.Join(err, ctx.Err()))
		}
	}
}

func require(t TB, err error) {
	t.Helper()
	switch {
	case err == nil:
	case errors.Is(err, ErrNotInstalled) && os.Getenv("QRT_REQUIRE_PEERS") != "1":
		t.Skip(err)
	default:
		t.Fatal(err)
	}
}

// StopShared ends the server of [Shared].
func StopShared() {
	if shared.server != nil {
		_ = shared.server.Close() // a temporary folder may stay
	}
}

// FreePort returns a port that a setting of a server can name. It is reserved until the test
// ends.
func FreePort(t TB) int {
	t.Helper()
	port, release, err := freeport.Take()
	require(t, err)
	t.Cleanup(release)
	return port
}
