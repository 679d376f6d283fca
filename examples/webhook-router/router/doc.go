// Package router receives GitHub's webhooks over HTTP and sends each, sealed, to
// the queue of the bot that it concerns.
//
// A webhook is taken only with a valid X-Hub-Signature-256, and is answered with
// 202 only after the broker has confirmed that it holds the message. Everything
// else is answered with what is wrong:
//
//	400  no X-GitHub-Event or X-GitHub-Delivery, or the body is no webhook
//	401  no X-Hub-Signature-256, or one that does not match
//	413  the body is larger than MAX_BODY, or than the broker takes
//	415  the body is not application/json
//	503  the broker did not confirm, or too many requests are under way; Retry-After
//	     says when to try again
//
// After a 503 the broker may hold the message all the same. GitHub's delivery GUID
// is the message's ID and the broker's identity for repeats, so that sending the
// webhook once more makes no second message within the broker's window (on the
// embedded brokers: the parameter dedup_window of their URL). Beyond it, bots tell
// repeats by the ID.
//
// The session of a message is the repository and the number of the pull request
// or the issue, so that what belongs together is handled in order. It travels in
// the clear, as do the name of the event and the GUID; the body does not.
package router
