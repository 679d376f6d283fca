package fauxqs_test

import (
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/queue-runtime/queue/testbed/fauxqs"
)

// TestStart: the server answers, counts calls, and is gone after Close.
func TestStart(t *testing.T) {
	s, err := fauxqs.Start(nil)
	if errors.Is(err, fauxqs.ErrNotInstalled) && os.Getenv("QRT_REQUIRE_PEERS") != "1" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL()+"/", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-amz-json-1.0")
	request.Header.Set("X-Amz-Target", "AmazonSQS.ListQueues")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	if err := answer.Body.Close(); err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("ListQueues: %s, %v", answer.Status, err)
	}
	if answer, err = http.Get(s.URL() + "/counts"); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(answer.Body)
	if err := errors.Join(err, answer.Body.Close()); err != nil || string(text) != `{"ListQueues":1}` {
		t.Errorf("the counts are %s, %v", text, err)
	}
	if keep := answer.Header.Get("Keep-Alive"); keep != "timeout=3600" {
		t.Errorf("connections are kept: %q, want an hour, longer than by any client", keep)
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	if answer, err := http.Get(s.URL() + "/counts"); err == nil {
		_ = answer.Body.Close()
		t.Error("the server answers after Close")
	}
}

// TestStartErrors: each error says what is missing.
func TestStartErrors(t *testing.T) {
	if _, err := fauxqs.Start(&fauxqs.Options{Folder: t.TempDir()}); !errors.Is(err, fauxqs.ErrNotInstalled) || !strings.Contains(err.Error(), "npm") {
		t.Errorf("an empty folder: %v", err)
	}
	if _, err := exec.LookPath("node"); err != nil {
		if os.Getenv("QRT_REQUIRE_PEERS") == "1" {
			t.Fatal("node is not on the PATH: install node 20 or later")
		}
		t.Skip("node is not on the PATH")
	}
	broken := t.TempDir()
	if err := os.MkdirAll(filepath.Join(broken, "node_modules", "fauxqs"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := fauxqs.Start(&fauxqs.Options{Folder: broken}); err == nil || !strings.Contains(err.Error(), "did not start") || !strings.Contains(err.Error(), "Error") {
		t.Errorf("a broken package: %v", err)
	}
	t.Setenv("PATH", "")
	if _, err := fauxqs.Start(&fauxqs.Options{Folder: broken}); !errors.Is(err, fauxqs.ErrNotInstalled) || !strings.Contains(err.Error(), "node") {
		t.Errorf("no node: %v", err)
	}
}
