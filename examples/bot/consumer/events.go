package consumer

// What the bots read of GitHub's webhooks. A body has hundreds of fields; what is
// not named here is skipped, so that a change of GitHub's to it breaks nothing.

// PullRequest is what the events pull_request, pull_request_review and
// pull_request_review_comment have in common.
type PullRequest struct {
	Action      string `json:"action"`
	PullRequest struct {
		Number int  `json:"number"`
		Draft  bool `json:"draft"`
		Merged bool `json:"merged"`
	} `json:"pull_request"`
}

// Issue is what the events issues and issue_comment have in common.
type Issue struct {
	Action string `json:"action"`
	Issue  struct {
		Number int    `json:"number"`
		State  string `json:"state"`
	} `json:"issue"`
}

// Push is the event push.
type Push struct {
	Ref     string     `json:"ref"`
	Deleted bool       `json:"deleted"`
	Commits []struct{} `json:"commits"`
}

// Other is any event.
type Other struct {
	Action string `json:"action"`
}
