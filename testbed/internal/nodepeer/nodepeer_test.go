package nodepeer_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/queue-runtime/queue/testbed/internal/nodepeer"
)

var errMissing = errors.New("missing")

// start starts a script without a package.
func start(t *testing.T, script string) *nodepeer.Process {
	t.Helper()
	folder := t.TempDir()
	if err := os.MkdirAll(filepath.Join(folder, "node_modules", "none"), 0o700); err != nil {
		t.Fatal(err)
	}
	c := &nodepeer.Config{Package: "none", Folder: folder, Script: script, Missing: errMissing}
	return nodepeer.Serve(t, func() (*nodepeer.Process, error) { return nodepeer.Start(c) }, errMissing)
}

// TestChatter: a server that says more than a pipe holds is not stopped by it.
func TestChatter(t *testing.T) {
	p := start(t, `
		console.log("http://127.0.0.1:1");
		console.log("x".repeat(1 << 20));
		process.stdin.on("end", () => process.exit(0)).resume();`)
	if p.URL() != "http://127.0.0.1:1" {
		t.Errorf("the URL is %.100q", p.URL())
	}
	if err := p.Close(); err != nil { // it would have to be killed
		t.Error(err)
	}
}

// TestSaysWhy: Close says what a server has said that ended with an error.
func TestSaysWhy(t *testing.T) {
	folder := t.TempDir()
	if err := os.MkdirAll(filepath.Join(folder, "node_modules", "none"), 0o700); err != nil {
		t.Fatal(err)
	}
	p, err := nodepeer.Start(&nodepeer.Config{Package: "none", Folder: folder, Missing: errMissing, Script: `
		console.log("http://127.0.0.1:1");
		process.stdin.on("end", () => { throw new Error("the disk is full") }).resume();`})
	if errors.Is(err, errMissing) && os.Getenv("QRT_REQUIRE_PEERS") != "1" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err == nil || !strings.Contains(err.Error(), "the disk is full") {
		t.Errorf("%v, want what it said", err)
	}
}

// TestKill: a killed process can be closed.
func TestKill(t *testing.T) {
	p := start(t, `
		console.log("http://127.0.0.1:1");
		process.stdin.on("end", () => process.exit(0)).resume();`)
	if err := errors.Join(p.Kill(), p.Kill(), p.Close()); err != nil {
		t.Error(err)
	}
}
