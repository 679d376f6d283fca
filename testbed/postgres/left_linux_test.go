package postgres

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// traces are what a running server has outside of its folder.
type traces struct {
	process int      // the server's
	files   []string // of POSIX shared memory
	segment string   // of System V shared memory: its number
}

func tracesOf(t *testing.T, s *Server) (found traces) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.data(), "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n") // the seventh has a key and the segment (miscadmin.h)
	if len(lines) < 7 || len(strings.Fields(lines[6])) != 2 {
		t.Fatalf("postmaster.pid has %q", text)
	}
	if found.process, err = strconv.Atoi(lines[0]); err != nil {
		t.Fatal(err)
	}
	found.segment = strings.Fields(lines[6])[1]
	maps, err := os.ReadFile(filepath.Join("/proc", lines[0], "maps"))
	if err != nil {
		t.Fatal(err)
	}
	found.files = slices.Compact(regexp.MustCompile(`/dev/shm/PostgreSQL\.\d+`).FindAllString(string(maps), -1))
	if len(found.files) == 0 {
		t.Log("the server has no shared memory in /dev/shm")
	}
	return found
}

// wantNone fails if something of it is still there.
func (left *traces) wantNone(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(left.process, 0); err == nil {
		t.Errorf("process %d is still there", left.process)
	}
	for _, name := range left.files {
		if _, err := os.Stat(name); err == nil {
			t.Errorf("%s is still there", name)
		}
	}
	text, err := os.ReadFile("/proc/sysvipc/shm")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[1] == left.segment {
			t.Errorf("shared memory segment %s is still there", left.segment)
		}
	}
}

// TestCloseLeavesNothing: neither a process nor shared memory is left of a server that was
// killed, of a standby, and of a server that cannot write to its disk or to its standby.
func TestCloseLeavesNothing(t *testing.T) {
	s, err := Start(&Options{Durable: true})
	Require(t, err)
	standby, err := s.Standby("second")
	if err != nil {
		t.Fatal(err)
	}
	of, ofStandby := tracesOf(t, s), tracesOf(t, standby)
	if err := standby.Kill(); err != nil {
		t.Error(err)
	}
	if err := standby.Close(); err != nil {
		t.Error(err)
	}
	ofStandby.wantNone(t)

	if err := s.Kill(); err != nil {
		t.Error(err)
	}
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	of.wantNone(t)
	of = tracesOf(t, s)
	if err := s.Kill(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	of.wantNone(t)

	if s, err = Start(&Options{Durable: true}); err != nil {
		t.Fatal(err)
	}
	of = tracesOf(t, s)
	writer, err := strconv.Atoi(psql(t, s, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'"))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(writer, syscall.SIGSTOP); err != nil { // as if its disk did not answer
		t.Fatal(err)
	}
	defer func() { _ = syscall.Kill(writer, syscall.SIGCONT) }() // it should be gone
	began := time.Now()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	t.Logf("a server that cannot write ended after %v", time.Since(began))
	of.wantNone(t)
}
