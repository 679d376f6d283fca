package dynalite_test

import (
	"errors"
	"net/http"
	"testing"

	"github.com/queue-runtime/queue/testbed/dynalite"
)

// TestKill: a killed server answers nothing and can be closed, and one that is started
// again has its address.
func TestKill(t *testing.T) {
	s := dynalite.Serve(t, &dynalite.Options{Data: t.TempDir()})
	url := s.URL()
	if err := errors.Join(s.Kill(), s.Kill(), s.Restart()); err != nil {
		t.Error(err)
	}
	if s.URL() != url {
		t.Errorf("the address changed from %s to %s", url, s.URL())
	}
}

// TestKeepAlive: the server keeps connections longer than any client: what is sent on one that
// is just being closed has no answer.
func TestKeepAlive(t *testing.T) {
	answer, err := http.Get(dynalite.Serve(t, nil).Direct())
	if err != nil {
		t.Fatal(err)
	}
	if err := answer.Body.Close(); err != nil || answer.Header.Get("Keep-Alive") != "timeout=3600" {
		t.Errorf("connections are kept: %q, %v, want an hour", answer.Header.Get("Keep-Alive"), err)
	}
}

// TestNotInstalled: the error says what is missing.
func TestNotInstalled(t *testing.T) {
	if _, err := dynalite.Start(&dynalite.Options{Folder: t.TempDir()}); !errors.Is(err, dynalite.ErrNotInstalled) {
		t.Errorf("an empty folder: %v", err)
	}
}
