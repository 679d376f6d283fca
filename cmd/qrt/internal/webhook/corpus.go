package webhook

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// Sizes of the bodies that Generate makes, in bytes: those of real webhooks.
const (
	minBody = 7 << 10
	maxBody = 30 << 10
)

// kinds are the events that Generate makes, by how often they come.
var kinds = []struct {
	name   string
	weight int
}{
	{"pull_request", 26},
	{"pull_request_review", 8},
	{"pull_request_review_comment", 6},
	{"issues", 14},
	{"issue_comment", 12},
	{"push", 24},
	{"check_run", 4},
	{"workflow_run", 3},
	{"release", 2},
	{"status", 1},
}

// Generate makes n webhooks of 7 to 30 KB, no two alike. The same seed makes the
// same ones.
func Generate(n int, seed uint64) []Event {
	r := rand.New(rand.NewPCG(seed, 0x9E3779B97F4A7C15)) //nolint:gosec // G404: test data, not secrets
	total := 0
	for _, k := range kinds {
		total += k.weight
	}
	events := make([]Event, n)
	for i := range events {
		pick := r.IntN(total)
		name := ""
		for _, k := range kinds {
			if pick -= k.weight; pick < 0 {
				name = k.name
				break
			}
		}
		events[i] = generate(r, name, i)
	}
	return events
}

func generate(r *rand.Rand, name string, serial int) Event {
	owner := pickWord(r, owners)
	repo := pickWord(r, repos)
	full := owner + "/" + repo
	number := 1 + r.IntN(40)
	at := time.Date(2026, 1, 5, 8, 0, 0, 0, time.UTC).Add(time.Duration(serial) * 7 * time.Second)
	api := "https://api.github.com/repos/" + full
	body := map[string]any{
		"repository": map[string]any{
			"id": 100000 + r.IntN(900000), "name": repo, "full_name": full, "private": true,
			"owner": person(r, owner), "html_url": "https://github.com/" + full, "url": api,
			"default_branch": "main", "pushed_at": at.Unix(), "language": "Go",
			"archive_url": api + "/{archive_format}{/ref}", "issues_url": api + "/issues{/number}",
		},
		"sender":       person(r, pickWord(r, people)),
		"installation": map[string]any{"id": 1000000 + serial},
	}
	e := Event{Name: name, Session: full}
	numbered := func(kind string) {
		e.Session = fmt.Sprintf("%s#%d", full, number)
		body["number"] = number
		body["action"] = pickWord(r, []string{"opened", "edited", "synchronize", "labeled", "closed", "created"})
		body[kind] = map[string]any{
			"url": fmt.Sprintf("%s/%s/%d", api, kind, number), "id": 500000000 + r.IntN(1<<20), "number": number,
			"state": "open", "title": sentence(r, 6), "user": person(r, pickWord(r, people)),
			"body": prose[r.IntN(len(prose))], "created_at": at.Format(time.RFC3339), "updated_at": at.Format(time.RFC3339),
			"head": map[string]any{"ref": "feature/" + pickWord(r, words), "sha": commitHash(r)},
			"base": map[string]any{"ref": "main", "sha": commitHash(r)},
		}
	}
	switch name {
	case "pull_request", "pull_request_review", "pull_request_review_comment":
		numbered("pull_request")
	case "issues", "issue_comment":
		numbered("issue")
	case "push":
		body["ref"] = "refs/heads/main"
		body["before"], body["after"] = commitHash(r), commitHash(r)
	default:
		body["action"] = "completed"
		body[name] = map[string]any{"id": serial, "head_sha": commitHash(r), "conclusion": "success", "output": prose[r.IntN(len(prose))]}
	}
	b, err := json.Marshal(body)
	if err != nil {
		panic(err) // maps of strings and numbers always marshal
	}
	e.Body = grow(r, b, minBody+r.IntN(maxBody-minBody), at)
	return e
}

// grow adds commits to the object in b until it has about want bytes: webhooks
// grow by what happened. The commits need no escapes, so they are written as
// they are.
func grow(r *rand.Rand, b []byte, want int, at time.Time) []byte {
	b = append(make([]byte, 0, want+2048), b[:len(b)-1]...)
	b = append(b, `,"commits":[`...)
	for first := true; first || len(b) < want; first = false {
		if !first {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, `{"id":%q,"message":%q,"timestamp":%q,"author":{"name":%q},"modified":["internal/%s/%s.go"],"diff":%q}`,
			commitHash(r), sentence(r, 9), at.Format(time.RFC3339), pickWord(r, people), pickWord(r, words), pickWord(r, words),
			prose[r.IntN(len(prose))])
	}
	return append(b, "]}"...)
}

// prose are texts to fill bodies with.
var prose = func() (list [64]string) {
	r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // G404: test data, not secrets
	for i := range list {
		list[i] = paragraphs(r, 1)
	}
	return list
}()

func person(r *rand.Rand, login string) map[string]any {
	return map[string]any{
		"login": login, "id": 10000 + r.IntN(90000), "type": "User", "site_admin": false,
		"avatar_url": "https://avatars.githubusercontent.com/u/" + fmt.Sprint(10000+r.IntN(90000)) + "?v=4",
		"html_url":   "https://github.com/" + login, "url": "https://api.github.com/users/" + login,
		"events_url": "https://api.github.com/users/" + login + "/events{/privacy}",
		"repos_url":  "https://api.github.com/users/" + login + "/repos",
	}
}

func pickWord(r *rand.Rand, list []string) string { return list[r.IntN(len(list))] }

func sentence(r *rand.Rand, n int) string {
	w := make([]string, n)
	for i := range w {
		w[i] = pickWord(r, words)
	}
	return strings.ToUpper(w[0][:1]) + w[0][1:] + " " + strings.Join(w[1:], " ")
}

func paragraphs(r *rand.Rand, n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteString("\n\n")
		}
		for range 3 + r.IntN(5) {
			b.WriteString(sentence(r, 8+r.IntN(8)))
			b.WriteString(". ")
		}
	}
	return b.String()
}

func commitHash(r *rand.Rand) string {
	b := make([]byte, 40)
	for i := range b {
		b[i] = "0123456789abcdef"[r.IntN(16)]
	}
	return string(b)
}

var (
	owners = []string{"northwind-labs", "blue-harbor", "kestrel-systems", "quiet-engine"}
	repos  = []string{"ledger", "gateway", "billing", "scheduler", "atlas", "mobile-app", "infra", "search"}
	people = []string{"ada-k", "bjorn", "chiara", "devi", "emeka", "fatima", "goran", "hana", "ines", "jonas"}
	words  = []string{
		"queue", "retry", "token", "parser", "cache", "invoice", "session", "timeout", "schema", "lock",
		"worker", "batch", "stream", "header", "config", "metric", "export", "search", "index", "policy",
		"handle", "the", "when", "after", "before", "without", "returns", "fails", "rename", "remove",
		"add", "check", "move", "split", "merge", "update", "customer", "payment", "region", "deploy",
	}
)
