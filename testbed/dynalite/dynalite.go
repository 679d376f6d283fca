// Package dynalite starts dynalite, an emulator of DynamoDB that runs in Node, as a
// child process on 127.0.0.1 and a free port, with a proxy in front.
//
// It needs Node 20 or newer and the npm package dynalite. In a clone of the project
// "npm ci --prefix testbed/dynalite/testdata" installs the package.
//
// dynalite ignores ReturnValuesOnConditionCheckFailure: the proxy adds the item to
// the error by reading it, as long as the request names it by Key. It has neither
// transactions nor UpdateTimeToLive. What it has stored outlives its process.
package dynalite

import (
	_ "embed" // the script
	"encoding/json"
	"errors"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/queue-runtime/queue/testbed/httpproxy"
	"github.com/queue-runtime/queue/testbed/internal/nodepeer"
)

// ErrNotInstalled is wrapped by the error of [Start] if Node or the npm package
// is missing.
var ErrNotInstalled = errors.New("dynalite is not installed")

//go:embed server.mjs
var script string

// Options are the options of [Start].
type Options struct {
	// Folder is the folder whose node_modules contains dynalite. Empty means the
	// folder testbed/dynalite/testdata of the clone that the program was built
	// in.
	Folder string
	// Data is the folder of what is stored. Empty means that it is in memory.
	Data string
	// Bare leaves errors as dynalite makes them.
	Bare bool
}

// Server is a running dynalite with its proxy, which tests may have fail.
type Server struct {
	*nodepeer.Proxied
}

// Start starts a server. It accepts any region and credentials. A nil o means the
// zero Options. The server runs until Close, or until the calling process ends.
func Start(o *Options) (*Server, error) {
	if o == nil {
		o = &Options{}
	}
	folder := o.Folder
	if folder == "" {
		_, file, _, _ := runtime.Caller(0)
		folder = filepath.Join(filepath.Dir(file), "testdata")
	}
	options := &httpproxy.Options{Name: action, Amend: addItem}
	if o.Bare {
		options.Amend = nil
	}
	p, err := nodepeer.StartProxied(&nodepeer.Config{
		Package: "dynalite", Folder: folder, Script: script, Args: []string{o.Data},
		Missing: ErrNotInstalled, Install: "npm ci --prefix testbed/dynalite/testdata",
	}, options)
	if err != nil {
		return nil, err
	}
	return &Server{p}, nil
}

// TB is the part of *testing.T that [Serve] uses.
type TB = nodepeer.TB

// Serve starts a server that ends with the test. If dynalite is not installed it
// skips the test, or fails it if QRT_REQUIRE_PEERS is 1.
func Serve(t TB, o *Options) *Server {
	t.Helper()
	return nodepeer.Serve(t, func() (*Server, error) { return Start(o) }, ErrNotInstalled)
}

const targetHeader = "X-Amz-Target"

// action returns the name of the API's action, such as UpdateItem.
func action(r *http.Request) string {
	_, name, _ := strings.Cut(r.Header.Get(targetHeader), ".")
	return name
}

// addItem adds the item to a ConditionalCheckFailedException, if the request asks
// for it (API Reference, UpdateItem).
func addItem(r *http.Request, body []byte, a *httpproxy.Answer, send func(*http.Request, []byte) (*httpproxy.Answer, error)) error {
	if a.Status != http.StatusBadRequest {
		return nil
	}
	var failure map[string]json.RawMessage
	var asked struct {
		TableName, ReturnValuesOnConditionCheckFailure string
		Key                                            json.RawMessage
	}
	if json.Unmarshal(a.Body, &failure) != nil || !strings.Contains(string(failure["__type"]), "ConditionalCheckFailed") ||
		json.Unmarshal(body, &asked) != nil || asked.ReturnValuesOnConditionCheckFailure != "ALL_OLD" || asked.Key == nil {
		return nil
	}
	question, err := json.Marshal(map[string]any{"TableName": asked.TableName, "Key": asked.Key, "ConsistentRead": true})
	if err != nil {
		return err
	}
	read := r.Clone(r.Context())
	read.Header.Set(targetHeader, "DynamoDB_20120810.GetItem")
	answer, err := send(read, question)
	if err != nil {
		return err
	}
	var found struct{ Item json.RawMessage }
	if answer.Status != http.StatusOK || json.Unmarshal(answer.Body, &found) != nil || found.Item == nil {
		return nil
	}
	failure["Item"] = found.Item
	if a.Body, err = json.Marshal(failure); err == nil {
		a.Header.Del("X-Amz-Crc32") // of the body as it was
	}
	return err
}
