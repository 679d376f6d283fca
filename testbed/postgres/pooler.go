package postgres

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/queue-runtime/queue/testbed/internal/freeport"
)

// ErrNoPooler is wrapped by the error of [StartPooler] if PgBouncer is missing.
var ErrNoPooler = errors.New("PgBouncer is not installed")

// Pooler is a PgBouncer in transaction mode in front of a server: each transaction gets
// a connection of the server that others have used before.
type Pooler struct {
	folder  string
	port    int
	release func() // of the port
	run     *running
}

// poolSize is how many connections of the server a Pooler has, and poolClients how many
// it takes.
const (
	poolSize    = 20
	poolClients = 2000
)

// StartPooler starts a PgBouncer in front of s. Every user is postgres to the server. It
// runs until Close, or until the calling process ends.
func StartPooler(s *Server) (*Pooler, error) {
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/pgbouncer"); err != nil {
			return nil, fmt.Errorf("%w: install Debian's package pgbouncer, or run .ci/peers", ErrNoPooler)
		}
	}
	folder, err := os.MkdirTemp("", "pgbouncer-")
	if err != nil {
		return nil, err
	}
	p := &Pooler{folder: folder, release: func() {}}
	if err := p.start(program, s.port); err != nil {
		p.release()
		return nil, errors.Join(err, os.RemoveAll(folder))
	}
	return p, nil
}

func (p *Pooler) start(program string, server int) (err error) {
	if err := give(p.folder); err != nil {
		return err
	}
	if p.port, p.release, err = freeport.Take(); err != nil {
		return err
	}
	path := filepath.Join(p.folder, "pgbouncer.ini")
	text := fmt.Sprintf(`[databases]
* = host=127.0.0.1 port=%d user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = %d
max_client_conn = %d
`, server, p.port, poolSize, poolClients)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil { //nolint:gosec // G306: another user reads it, and it has no secret
		return err
	}
	p.run, err = start(p.folder, killPooler, "process up", program, path)
	return err
}

// URL returns the URL of a database of the server through the pooler.
func (p *Pooler) URL(database string) string {
	u := url.URL{Scheme: "postgres", User: url.User("postgres"), Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(p.port)), Path: "/" + database}
	return u.String()
}

// Close stops the pooler and removes its files.
func (p *Pooler) Close() error {
	p.run.stop()
	p.release()
	return os.RemoveAll(p.folder)
}

// sharedPooler is the pooler of a test binary.
var sharedPooler struct {
	once   sync.Once
	pooler *Pooler
	err    error
}

// SharedPooler returns a pooler in front of the server of [Shared], started once in a test
// binary. If PgBouncer is not installed it skips the test, or fails it if
// QRT_REQUIRE_PEERS is 1. [StopShared] ends it.
func SharedPooler(t TB) *Pooler {
	t.Helper()
	server := Shared(t)
	sharedPooler.once.Do(func() { sharedPooler.pooler, sharedPooler.err = StartPooler(server) })
	Require(t, sharedPooler.err)
	return sharedPooler.pooler
}
