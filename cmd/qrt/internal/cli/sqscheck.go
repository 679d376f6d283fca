package cli

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/queue-runtime/queue/aws/sqsqueue"
	"github.com/queue-runtime/queue/cmd/qrt/internal/display"
	"github.com/queue-runtime/queue/driver"
)

// What an identity is for (docs/brokers/sqs.md, Permissions).
const (
	roleSender   = "sender"
	roleReceiver = "receiver"
	roleOperator = "operator"
)

var roles = []string{roleSender, roleReceiver, roleOperator}

// rights are the actions that each role needs; "dead:" stands before those on the
// dead-letter queue. GetQueueUrl on the queue itself is needed by all.
var rights = map[string]struct {
	can  string
	need []string
}{
	roleSender: {"send", []string{"sqs:GetQueueAttributes", "sqs:SendMessage"}},
	roleReceiver: {"receive and dead-letter", []string{
		"sqs:GetQueueAttributes", "sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility",
		"dead:sqs:GetQueueUrl", "dead:sqs:GetQueueAttributes", "dead:sqs:SendMessage",
	}},
	roleOperator: {"redrive", []string{
		"sqs:GetQueueAttributes", "sqs:SendMessage",
		"dead:sqs:GetQueueUrl", "dead:sqs:GetQueueAttributes", "dead:sqs:ReceiveMessage", "dead:sqs:DeleteMessage", "dead:sqs:ChangeMessageVisibility",
	}},
}

// permissions says what this identity may do to a queue of SQS.
func (x *doctorRun) permissions(ctx context.Context, p *sqsqueue.Broker, name string) {
	const check = "permissions"
	list, err := p.Permissions(ctx, name)
	if err != nil {
		if ctx.Err() == nil && !errors.Is(err, driver.ErrNotFound) { // opening it says that
			x.find(levelError, check, "allow sqs:GetQueueUrl and sqs:GetQueueAttributes; see docs/brokers/sqs.md", "%s", shownError(err))
		}
		return
	}
	refused := make(map[string]bool)
	for _, r := range list {
		action := r.Action
		if r.DeadLetters {
			action = "dead:" + action
		}
		switch {
		case r.Err == nil:
		case errors.Is(r.Err, driver.ErrPermission):
			refused[action] = true
		default:
			x.find(levelWarning, check, "try again", "%s could not be found out: %s", r.Action, shownError(r.Err))
			return
		}
	}
	able := 0
	for _, role := range roles {
		var missing []string
		for _, action := range rights[role].need {
			if refused[action] {
				on := " on " + name
				if strings.HasPrefix(action, "dead:") {
					on = " on its dead-letter queue"
				}
				missing = append(missing, strings.TrimPrefix(action, "dead:")+on)
			}
		}
		switch {
		case len(missing) == 0:
			if able++; x.role == "" || x.role == role {
				x.ok(check, "this identity may %s", rights[role].can)
			}
		case x.role == role:
			x.find(levelError, check, "allow it in the identity's policy; see docs/brokers/sqs.md", "a %s must be able to %s, and this identity is refused %s", role, rights[role].can, strings.Join(missing, ", "))
		case x.role == "":
			x.find(levelNote, check, "", "this identity may not %s: refused is %s", rights[role].can, strings.Join(missing, ", "))
		}
	}
	if able == 0 && x.role == "" {
		x.find(levelError, check, "allow what its role needs in the identity's policy; see docs/brokers/sqs.md", "this identity may neither send, receive nor redrive")
	}
	if x.role == roleSender && !refused["sqs:ReceiveMessage"] || x.role == roleReceiver && !refused["sqs:SendMessage"] {
		x.find(levelNote, check, "give each service what it needs, and nothing else", "this identity may do more than a %s has to", x.role)
	}
}

// deadRetention holds how long the dead-letter queue keeps messages against the
// queue: the broker's own redrive on a standard queue takes along when a message
// was sent (Developer Guide, dead-letter queues).
func (x *doctorRun) deadRetention(caps *driver.Capabilities, kept time.Duration) {
	if kept <= 0 || caps.Retention <= 0 || kept > caps.Retention {
		return
	}
	x.find(levelWarning, "dead letters", "raise the dead-letter queue's MessageRetentionPeriod, best to 1209600 (14 days)",
		"they are kept for %s, the queue's own messages for %s: a message that SQS moves late may be deleted before an operator sees it", display.Duration(kept), display.Duration(caps.Retention))
}

// queueKind says what kind of queue of SQS it is.
func (x *doctorRun) queueKind(caps *driver.Capabilities) {
	const check = "sessions"
	if caps.Sessions == driver.None {
		x.find(levelNote, check, "if messages must stay in order, create a FIFO queue", "a standard queue: no sessions, no order")
		return
	}
	x.ok(check, "a FIFO queue: a session is a message group")
}
