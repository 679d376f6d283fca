// Package postgres starts PostgreSQL servers for tests, as child processes on
// 127.0.0.1 and a free port, each with an empty cluster in a temporary folder.
//
// It needs the programs initdb and postgres, version 14 or newer, and pg_basebackup and
// pg_ctl for standbys: in the path, or where Debian's packages have them. They refuse to
// run as root, so a test that runs as root starts them as the user postgres, or as one
// without rights. Every local user can log in as every role without a password.
package postgres

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
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

// ErrNotInstalled is wrapped by the error of [Start] if PostgreSQL is missing.
var ErrNotInstalled = errors.New("PostgreSQL is not installed")

const (
	// startTimeout bounds initdb and the start of the server each. They take a
	// second; a machine under a load of 10 takes more, and recovery after a kill too.
	startTimeout = 3 * time.Minute

	// closeTimeout is how long Close waits before it kills the server.
	closeTimeout = 20 * time.Second
)

// Options are the options of [Start].
type Options struct {
	// Durable makes the server wait for the disk (fsync = on), for tests that kill
	// it. The zero value does not wait.
	Durable bool

	// Settings are further settings of postgresql.conf.
	Settings map[string]string
}

// Server is a PostgreSQL server. Its methods must not be called concurrently.
type Server struct {
	bin      string // folder of the programs
	folder   string
	port     int
	release  func()            // of the port
	settings map[string]string // of postgresql.conf
	run      *running          // nil while the server does not run
	killed   bool              // and not started again
}

// Start creates a cluster and starts its server. A nil o means the zero Options. The
// server runs until Close, or until the calling process ends.
func Start(o *Options) (*Server, error) {
	if o == nil {
		o = new(Options)
	}
	bin, err := find()
	if err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp("", "postgres-")
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin, folder: folder, release: func() {}}
	if err := s.start(o); err != nil {
		s.release()
		return nil, errors.Join(err, os.RemoveAll(folder))
	}
	return s, nil
}

func (s *Server) start(o *Options) error {
	if err := give(s.folder); err != nil {
		return err
	}
	err := s.program(startTimeout, "initdb", "--pgdata="+s.data(), "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync")
	if err != nil {
		return err
	}
	if s.port, s.release, err = freeport.Take(); err != nil {
		return err
	}
	settings := map[string]string{
		"listen_addresses":        "127.0.0.1",
		"port":                    strconv.Itoa(s.port),
		"unix_socket_directories": "",
		"shared_buffers":          "64MB",
		"max_connections":         "400",
		"max_wal_size":            "2GB",
		"fsync":                   "off",
		"full_page_writes":        "off",
	}
	if o.Durable {
		settings["fsync"], settings["full_page_writes"] = "on", "on"
	}
	maps.Copy(settings, o.Settings)
	s.settings = settings
	return s.Restart()
}

func (s *Server) data() string { return filepath.Join(s.folder, "data") }

// URL returns the URL of a database of the server for a role.
func (s *Server) URL(role, database string) string {
	u := url.URL{Scheme: "postgres", User: url.User(role), Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)), Path: "/" + database}
	return u.String()
}

// Restart starts the server again after [Server.Kill], and returns when it accepts
// connections.
func (s *Server) Restart() (err error) {
	if s.run != nil {
		return errors.New("the server runs")
	}
	line := append([]string{filepath.Join(s.bin, "postgres"), "-D", s.data()}, arguments(s.settings)...)
	// A standby says "read-only connections".
	s.run, err = start(s.folder, quitServer, "database system is ready to accept ", line...)
	s.killed = s.killed && err != nil
	return err
}

// Kill ends the server with SIGKILL, as a crash would, and waits until all of its
// processes are gone.
func (s *Server) Kill() error {
	if s.run == nil {
		return errors.New("the server does not run")
	}
	text, err := os.ReadFile(filepath.Join(s.data(), "postmaster.pid"))
	if err != nil {
		return err
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		return err
	}
	process, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	if err := process.Kill(); err != nil {
		return err
	}
	<-s.run.ended
	_ = s.run.input.Close()
	<-s.run.silent // a cluster does not start while a process of the last server has its memory
	s.run, s.killed = nil, true
	return nil
}

// Close stops the server and removes its files.
func (s *Server) Close() error {
	if r := s.run; r != nil {
		s.run = nil
		r.stop()
	}
	if s.killed {
		s.removeMemory()
	}
	s.release()
	return os.RemoveAll(s.folder)
}

// removeMemory removes the shared memory that the processes of a killed server have left on
// the machine: some MiB, of which a container has few. A process of the same cluster that ends
// removes it.
func (s *Server) removeMemory() {
	// A standby does not run this way. It says so when it has found the memory.
	_ = s.program(startTimeout, "postgres", "--single", "-D", s.data(), "-c", "fsync=off", "postgres")
}

// find returns the folder of the programs.
func find() (string, error) {
	folders, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // the pattern is valid
	slices.Reverse(folders)                                  // the newest first
	if path, err := exec.LookPath("initdb"); err == nil {
		if whole, err := filepath.EvalSymlinks(path); err == nil {
			path = whole
		}
		folders = append([]string{filepath.Dir(path)}, folders...)
	}
	for _, f := range folders {
		_, first := os.Stat(filepath.Join(f, "initdb"))
		_, second := os.Stat(filepath.Join(f, "postgres"))
		if first == nil && second == nil {
			return f, nil
		}
	}
	return "", fmt.Errorf("%w: install Debian's package postgresql, or run .ci/peers", ErrNotInstalled)
}

// TB is the part of *testing.T that this package uses.
type TB interface {
	Helper()
	Fatal(args ...any)
	Skip(args ...any)
}

// shared is the server of a test binary.
var shared struct {
	once   sync.Once
	server *Server
	err    error
}

// Shared returns a server that is started once in a test binary. If PostgreSQL is not
// installed it skips the test, or fails it if QRT_REQUIRE_PEERS is 1. TestMain
// calls [StopShared] last.
func Shared(t TB) *Server {
	t.Helper()
	shared.once.Do(func() { shared.server, shared.err = Start(nil) })
	Require(t, shared.err)
	return shared.server
}

// Require ends a test if err, which Start or StartPooler returned, is not nil.
func Require(t TB, err error) {
	t.Helper()
	switch {
	case err == nil:
	case (errors.Is(err, ErrNotInstalled) || errors.Is(err, ErrNoPooler)) && os.Getenv("QRT_REQUIRE_PEERS") != "1":
		t.Skip(err)
	default:
		t.Fatal(err)
	}
}

// StopShared ends the server of [Shared], and the pooler of [SharedPooler].
func StopShared() {
	if sharedPooler.pooler != nil {
		_ = sharedPooler.pooler.Close() // a temporary folder may stay
	}
	if shared.server != nil {
		_ = shared.server.Close() // a temporary folder may stay
	}
}
