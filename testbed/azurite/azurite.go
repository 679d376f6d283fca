// Package azurite starts the table server of azurite, an emulator of Azure Storage
// that runs in Node, as a child process on 127.0.0.1 and a free port, with a proxy in
// front.
//
// It needs Node 20 or newer and the npm package azurite. In a clone of the project
// "npm ci --prefix testbed/azurite/testdata" installs the package.
//
// What it has stored outlives its process if that ends by Restart or Close. Kill loses
// what was written in the last 5 seconds: azurite writes its file that often.
package azurite

import (
	_ "embed" // the script
	"errors"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/queue-runtime/queue/testbed/httpproxy"
	"github.com/queue-runtime/queue/testbed/internal/nodepeer"
)

// The account that every azurite has (its documentation, Storage accounts). The key
// is no secret.
const (
	Account = "devstoreaccount1"
	Key     = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==" //nolint:gosec // G101: published
)

// ErrNotInstalled is wrapped by the error of [Start] if Node or the npm package
// is missing.
var ErrNotInstalled = errors.New("azurite is not installed")

//go:embed server.mjs
var script string

// Options are the options of [Start].
type Options struct {
	// Folder is the folder whose node_modules contains azurite. Empty means the
	// folder testbed/azurite/testdata of the clone that the program was built
	// in.
	Folder string
	// Data is the file of what is stored. Required.
	Data string
}

// Server is a running azurite with its proxy, which tests may have fail.
type Server struct {
	*nodepeer.Proxied
	data string
}

// Start starts a server. It runs until Close, or until the calling process ends.
func Start(o *Options) (*Server, error) {
	if o == nil || o.Data == "" {
		return nil, errors.New("azurite: name the file of its data in Options.Data")
	}
	folder := o.Folder
	if folder == "" {
		_, file, _, _ := runtime.Caller(0)
		folder = filepath.Join(filepath.Dir(file), "testdata")
	}
	p, err := nodepeer.StartProxied(&nodepeer.Config{
		Package: "azurite", Folder: folder, Script: script, Args: []string{o.Data},
		Missing: ErrNotInstalled, Install: "npm ci --prefix testbed/azurite/testdata",
	}, &httpproxy.Options{Name: operation})
	if err != nil {
		return nil, err
	}
	return &Server{p, o.Data}, nil
}

// Endpoint returns the URL of the account's tables.
func (s *Server) Endpoint() string { return s.URL() + "/" + Account }

// Data returns the name of the file of its data, which it writes every few seconds.
func (s *Server) Data() string { return s.data }

// TB is the part of *testing.T that [Serve] uses.
type TB interface {
	nodepeer.TB
	TempDir() string
}

// Serve starts a server that ends with the test. If azurite is not installed it
// skips the test, or fails it if QRT_REQUIRE_PEERS is 1.
func Serve(t TB) *Server {
	t.Helper()
	o := &Options{Data: filepath.Join(t.TempDir(), "tables.json")}
	return nodepeer.Serve(t, func() (*Server, error) { return Start(o) }, ErrNotInstalled)
}

// operation names a request: "batch", or its method.
func operation(r *http.Request) string {
	if strings.HasSuffix(r.URL.Path, "/$batch") {
		return "batch"
	}
	return r.Method
}
