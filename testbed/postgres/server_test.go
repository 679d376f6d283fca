package postgres

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"testing"
)

// psql runs one statement.
func psql(t *testing.T, s *Server, statement string) string {
	t.Helper()
	out, err := exec.Command(filepath.Join(s.bin, "psql"), "-XAtq", s.URL("postgres", "postgres"), "-c", statement).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", statement, err, out)
	}
	return string(bytes.TrimSpace(out))
}

// TestKill: what was committed survives SIGKILL and a restart.
func TestKill(t *testing.T) {
	s, err := Start(&Options{Durable: true})
	Require(t, err)
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	psql(t, s, "CREATE TABLE t AS SELECT 42 AS n")
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	if got := psql(t, s, "SELECT n FROM t"); got != "42" {
		t.Errorf("after a kill and a restart the table has %q, want 42", got)
	}
}

// TestStandby: a standby that was promoted has what it had received, and takes writes.
func TestStandby(t *testing.T) {
	s, err := Start(nil)
	Require(t, err)
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	psql(t, s, "CREATE TABLE t AS SELECT 42 AS n")
	standby, err := s.Standby("second")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := standby.Close(); err != nil {
			t.Error(err)
		}
	}()
	if got := psql(t, standby, "SELECT pg_is_in_recovery()"); got != "t" {
		t.Errorf("in recovery: %q, want t", got)
	}
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := standby.Promote(); err != nil {
		t.Fatal(err)
	}
	if got := psql(t, standby, "INSERT INTO t VALUES (43) RETURNING (SELECT n FROM t)"); got != "42" {
		t.Errorf("after the promotion the table has %q, want 42", got)
	}
}
