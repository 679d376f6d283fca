// Package fauxqs starts fauxqs, an emulator of AWS SQS that runs in Node, as a
// child process on 127.0.0.1 and a free port.
//
// It needs Node 20 or newer and the npm package fauxqs. In a clone of the project
// "npm ci --prefix testbed/fauxqs/testdata" installs the package.
package fauxqs

import (
	_ "embed" // the script
	"errors"
	"path/filepath"
	"runtime"

	"github.com/queue-runtime/queue/testbed/internal/nodepeer"
)

// ErrNotInstalled is wrapped by the error of [Start] if Node or the npm package
// is missing.
var ErrNotInstalled = errors.New("fauxqs is not installed")

//go:embed server.mjs
var script string

// Options are the options of [Start].
type Options struct {
	// Folder is the folder whose node_modules contains fauxqs. Empty means the
	// folder testbed/fauxqs/testdata of the clone that the program was built in.
	Folder string
}

// Server is a running fauxqs. It keeps its state in memory.
type Server struct{ process *nodepeer.Process }

// Start starts a server. It serves the region us-east-1 and accepts any
// credentials. A nil o means the zero Options. The server runs until Close, or
// until the calling process ends.
func Start(o *Options) (*Server, error) {
	folder := ""
	if o != nil {
		folder = o.Folder
	}
	if folder == "" {
		_, file, _, _ := runtime.Caller(0)
		folder = filepath.Join(filepath.Dir(file), "testdata")
	}
	p, err := nodepeer.Start(&nodepeer.Config{
		Package: "fauxqs", Folder: folder, Script: script,
		Missing: ErrNotInstalled, Install: "npm ci --prefix testbed/fauxqs/testdata",
	})
	if err != nil {
		return nil, err
	}
	return &Server{p}, nil
}

// URL returns the address, such as "http://127.0.0.1:40123".
func (s *Server) URL() string { return s.process.URL() }

// Close ends the process and waits for its end, a minute at most. A second call
// returns the same error.
func (s *Server) Close() error { return s.process.Close() }
