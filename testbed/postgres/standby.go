package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/queue-runtime/queue/testbed/internal/freeport"
)

// promoteTimeout bounds a promotion. Most take half a second.
const promoteTimeout = time.Minute

// Standby copies the cluster of s and starts a server that follows s by streaming
// replication, under the name that synchronous_standby_names can have. It has the settings
// of s, and a port of its own. The caller closes it.
func (s *Server) Standby(name string) (*Server, error) {
	folder, err := os.MkdirTemp("", "postgres-")
	if err != nil {
		return nil, err
	}
	standby := &Server{bin: s.bin, folder: folder, release: func() {}}
	if err := standby.follow(s, name); err != nil {
		standby.release()
		return nil, errors.Join(err, os.RemoveAll(folder))
	}
	return standby, nil
}

func (s *Server) follow(primary *Server, name string) error {
	if err := give(s.folder); err != nil {
		return err
	}
	source := fmt.Sprintf("host=127.0.0.1 port=%d user=postgres application_name=%s", primary.port, name)
	err := s.program(startTimeout, "pg_basebackup", "--pgdata="+s.data(), "--dbname="+source, "--write-recovery-conf",
		"--checkpoint=fast", "--wal-method=stream", "--no-sync")
	if err != nil {
		return err
	}
	if s.port, s.release, err = freeport.Take(); err != nil {
		return err
	}
	settings := maps.Clone(primary.settings)
	settings["port"] = strconv.Itoa(s.port)
	s.settings = settings
	return s.Restart()
}

// Promote makes a standby a primary, and returns when it takes writes.
func (s *Server) Promote() error {
	return s.program(promoteTimeout, "pg_ctl", "promote", "--pgdata="+s.data(), "--wait",
		fmt.Sprintf("--timeout=%d", int(promoteTimeout.Seconds())))
}

// program runs one of PostgreSQL's programs to its end.
func (s *Server) program(timeout time.Duration, name string, arguments ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	command := exec.CommandContext(ctx, filepath.Join(s.bin, name), arguments...) //nolint:gosec // G204: a test's own cluster
	command.Dir = s.folder
	if err := unprivileged(command); err != nil {
		return err
	}
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(out))
	}
	return nil
}

// arguments are settings as options of the server.
func arguments(settings map[string]string) (list []string) {
	for name, value := range settings {
		list = append(list, "-c", name+"="+value)
	}
	return list
}
