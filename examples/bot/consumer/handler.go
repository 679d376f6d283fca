package consumer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/worker"
)

// eventAttribute has the name of the event. Only the router can set it in a sealed
// message.
const eventAttribute = "github-event"

// Handler returns the handler of all events, which gives t what each asks for.
// Events that it does not know are noted, not refused: GitHub adds new ones.
func Handler(bot string, t Tracker) worker.Handler {
	do := func(ctx context.Context, d *queue.Delivery, what string) error {
		sum := sha256.Sum256(d.Body)
		return t.Do(ctx, Task{
			ID: d.ID, Bot: bot, Event: d.Attributes[eventAttribute], Session: d.SessionID, What: what,
			SHA256: hex.EncodeToString(sum[:]), Encrypted: d.Encrypted, KeyID: string(d.KeyID), Sender: d.Sender, Delivery: d.Count,
		})
	}
	pullRequest := worker.JSON(func(ctx context.Context, e PullRequest, d *queue.Delivery) error {
		return do(ctx, d, pullRequestTask(&e))
	})
	issue := worker.JSON(func(ctx context.Context, e Issue, d *queue.Delivery) error {
		return do(ctx, d, issueTask(&e))
	})
	push := worker.JSON(func(ctx context.Context, e Push, d *queue.Delivery) error {
		return do(ctx, d, pushTask(&e))
	})
	other := worker.JSON(func(ctx context.Context, e Other, d *queue.Delivery) error {
		return do(ctx, d, strings.TrimSpace("note "+d.Attributes[eventAttribute]+" "+e.Action))
	})
	known := map[string]worker.Handler{
		"pull_request":                pullRequest,
		"pull_request_review":         pullRequest,
		"pull_request_review_comment": pullRequest,
		"issues":                      issue,
		"issue_comment":               issue,
		"push":                        push,
	}
	return worker.HandlerFunc(func(ctx context.Context, d *queue.Delivery) error {
		h, ok := known[d.Attributes[eventAttribute]]
		if !ok {
			h = other
		}
		return h.Handle(ctx, d)
	})
}

func pullRequestTask(e *PullRequest) string {
	switch {
	case e.PullRequest.Merged:
		return fmt.Sprintf("close the task of pull request %d", e.PullRequest.Number)
	case e.PullRequest.Draft:
		return fmt.Sprintf("wait for pull request %d", e.PullRequest.Number)
	case e.Action == "opened" || e.Action == "reopened" || e.Action == "ready_for_review":
		return fmt.Sprintf("open a task for pull request %d", e.PullRequest.Number)
	}
	return fmt.Sprintf("update the task of pull request %d", e.PullRequest.Number)
}

func issueTask(e *Issue) string {
	if e.Issue.State == "closed" {
		return fmt.Sprintf("release what issue %d holds back", e.Issue.Number)
	}
	return fmt.Sprintf("look whether issue %d holds a merge back", e.Issue.Number)
}

func pushTask(e *Push) string {
	if e.Deleted {
		return "forget " + e.Ref
	}
	return fmt.Sprintf("check the specification against %s (%d commits)", e.Ref, len(e.Commits))
}
