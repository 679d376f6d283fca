package redispeer_test

import (
	"strings"
	"testing"

	"github.com/queue-runtime/queue/testbed/redispeer"
)

// A server that was killed comes back with its files; a replica follows; a proxy cuts.
func TestServer(t *testing.T) {
	s := redispeer.New(t, map[string]string{"appendonly": "yes", "appendfsync": "always"})
	do := func(s *redispeer.Server, want string, arguments ...string) {
		t.Helper()
		if got, err := s.Do(t.Context(), arguments...); err != nil || got != want {
			t.Fatalf("%v: %q, %v, want %q", arguments, got, err, want)
		}
	}
	do(s, "+OK", "SET", "a", "1")
	if err := s.Restart(); err == nil {
		t.Error("a server that runs was started again")
	}
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.Kill(); err == nil {
		t.Error("a server that does not run was killed")
	}
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	do(s, "1", "GET", "a")
	r := redispeer.Replica(t, s, nil)
	do(r, "1", "GET", "a")
	do(s, "+OK", "SET", "a", "2")
	do(s, ":1", "WAIT", "1", "20000") // of another connection, so at once
	if err := r.Await("replication", "role:slave"); err != nil {
		t.Error(err)
	}
	if _, err := redispeer.Start(&redispeer.Options{Settings: map[string]string{"no-such-setting": "1"}}); err == nil || !strings.Contains(err.Error(), "no-such-setting") {
		t.Errorf("a setting that does not exist: %v", err)
	}
}
