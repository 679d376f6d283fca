// Package webhook is the example that the demonstration and the benchmark of qrt
// stand on: GitHub webhooks, read from a folder or made up, and the router that
// sends each to a queue.
//
// It does not speak HTTP and checks no signature; examples/webhook-router does.
package webhook

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// The queues of the three bots.
const (
	TaskTactician = "task-tactician" // pull requests
	MergeWarden   = "merge-warden"   // issues
	SpecSentinel  = "spec-sentinel"  // pushes
)

// Queues are the three queues.
var Queues = [...]string{TaskTactician, MergeWarden, SpecSentinel}

// Event is one webhook.
type Event struct {
	// Name is what GitHub sends as X-GitHub-Event, such as "pull_request".
	Name string
	// Session is the repository and the number of the pull request or issue, whose
	// events must stay in order. Empty if the event has no repository.
	Session string
	Body    []byte
}

// Route returns the queue of an event. What belongs to no bot is spread by its
// session, so that order holds there, too.
func Route(e *Event) string {
	switch {
	case strings.HasPrefix(e.Name, "pull_request"):
		return TaskTactician
	case strings.HasPrefix(e.Name, "issue"):
		return MergeWarden
	case e.Name == "push":
		return SpecSentinel
	}
	h := uint32(2166136261) // FNV-1a
	for _, c := range []byte(e.Name + "\x00" + e.Session) {
		h = (h ^ uint32(c)) * 16777619
	}
	return Queues[h%uint32(len(Queues))]
}

// Load reads the .json files of a folder, each a webhook named after its event.
func Load(dir string) ([]Event, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var events []Event
	for _, entry := range entries {
		name, ok := strings.CutSuffix(entry.Name(), ".json")
		if !ok || !entry.Type().IsRegular() {
			continue
		}
		body, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return nil, err
		}
		session, err := sessionOf(body)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", entry.Name(), err)
		}
		events = append(events, Event{Name: strings.ReplaceAll(name, "-", "_"), Session: session, Body: body})
	}
	if len(events) == 0 {
		return nil, fmt.Errorf("%s: no .json files", dir)
	}
	slices.SortFunc(events, func(a, b Event) int { return strings.Compare(a.Name, b.Name) })
	return events, nil
}

// maxSession keeps sessions within what every broker takes.
const maxSession = 128

// sessionOf reads repository and number out of a body.
func sessionOf(body []byte) (string, error) {
	var e struct {
		Repository struct {
			FullName string `json:"full_name"`
		} `json:"repository"`
		Number      int `json:"number"`
		PullRequest struct {
			Number int `json:"number"`
		} `json:"pull_request"`
		Issue struct {
			Number int `json:"number"`
		} `json:"issue"`
	}
	if err := json.Unmarshal(body, &e); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return "", fmt.Errorf("no JSON at byte %d", syntax.Offset)
		}
		return "", errors.New("no webhook: repository or number has another form")
	}
	session := e.Repository.FullName
	if session == "" {
		return "", nil
	}
	for _, n := range []int{e.Number, e.PullRequest.Number, e.Issue.Number} {
		if n != 0 {
			session += "#" + strconv.Itoa(n)
			break
		}
	}
	return session[:min(len(session), maxSession)], nil
}
