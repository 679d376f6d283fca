package router

import (
	"errors"
	"hash/fnv"
	"strings"

	"github.com/queue-runtime/queue/sessionkey"
)

// route is one of the three queues.
type route int

const (
	pullRequests route = iota // Task Tactician's
	issues                    // Merge Warden's
	pushes                    // Spec Sentinel's

	routes = 3
)

// routeOf returns the queue of an event by its name. Events that are no bot's own
// are spread: all of one name to one bot, which then knows what to do with them.
func routeOf(event string) route {
	switch {
	case strings.HasPrefix(event, "pull_request"):
		return pullRequests
	case strings.HasPrefix(event, "issue"):
		return issues
	case event == "push":
		return pushes
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(event)) // never fails
	return route(h.Sum32() % routes)
}

// repository is in nearly every webhook.
const repository = sessionkey.Field("repository.full_name")

// sessions is one session for each pull request, for each issue, and for what else
// happens in a repository.
var sessions = sessionkey.Fallback{
	sessionkey.Composite{repository, sessionkey.Field("pull_request.number")},
	sessionkey.Composite{repository, sessionkey.Field("issue.number")},
	repository,
}

// numbered is sessions with the repository's number in place of its name, which can
// be longer than a session may be: GitHub's goes up to 140 bytes.
var numbered = sessionkey.Fallback{
	sessionkey.Composite{repositoryNumber, sessionkey.Field("pull_request.number")},
	sessionkey.Composite{repositoryNumber, sessionkey.Field("issue.number")},
	repositoryNumber,
}

const repositoryNumber = sessionkey.Field("repository.id")

// sessionOf returns the session of a body. A webhook without a repository is alone
// in a session of its own, named after its delivery: brokers that deliver by
// session need one.
func sessionOf(body []byte, delivery string) (string, error) {
	m := &sessionkey.Message{Body: body, ContentType: contentType}
	id, err := sessions.SessionID(m)
	if errors.Is(err, sessionkey.ErrMessage) {
		// All webhooks of one pull request have the same name, so that all of them
		// come here or none does.
		if n, other := numbered.SessionID(m); n != "" && other == nil {
			return n, nil
		}
	}
	if id == "" && err == nil {
		id = delivery
	}
	return id, err
}
