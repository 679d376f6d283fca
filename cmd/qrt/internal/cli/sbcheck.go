package cli

import (
	"context"
	"errors"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus/admin"

	"github.com/queue-runtime/queue/azure/sbqueue"
	"github.com/queue-runtime/queue/driver"
)

func isServiceBus(p driver.Broker) bool {
	_, ok := p.(*sbqueue.Broker)
	return ok
}

// serviceBus looks at what is Service Bus's own. It reports whether the queue can
// be looked into: not if it is opened as another kind than it is.
func (x *doctorRun) serviceBus(ctx context.Context, p driver.Broker, q driver.Queue, name string) bool {
	if !x.sessions(ctx, q) {
		return false
	}
	b, ok := p.(*sbqueue.Broker)
	if !ok {
		return true
	}
	properties, err := b.Properties(ctx, name)
	const check = "settings"
	switch {
	case unsupported(err):
		x.find(levelNote, check, "check by hand that messages which expire are dead-lettered, and that lock, max_deliveries and retention in the URL are the queue's",
			"there is no management API here: the settings are those of the URL")
	case errors.Is(err, driver.ErrPermission):
		x.find(levelNote, check, "to check them, run qrt doctor with the right to manage the queue (Azure Service Bus Data Owner); services do not need that right",
			"this identity may not read how the queue was made")
	case err != nil:
		x.find(levelWarning, check, "try again", "how the queue was made: %s", shownError(err))
	default:
		x.properties(properties)
	}
	return true
}

// sessions finds out whether the queue requires sessions, by a link of the kind
// that it is opened for.
func (x *doctorRun) sessions(ctx context.Context, q driver.Queue) bool {
	const check = "sessions"
	if !q.Capabilities().SessionOnly {
		_, _, err := q.Peek(ctx, "", 1)
		if driver.KindOf(err) == driver.Invalid {
			x.find(levelError, check, "put ?sessions=true into the URL, or create another queue: this setting of a queue cannot be changed", "the queue requires sessions, and is opened as one that has none")
			return false
		}
		if err == nil {
			x.find(levelNote, check, "if messages must stay in order, create a queue that requires sessions", "the queue has no sessions, and so no order")
		}
		return true
	}
	// A session of doctor's own, which holds no message.
	s, err := q.AcceptSession(ctx, probeQueue, time.Second)
	switch {
	case err == nil:
		if err := s.Close(ctx); err != nil && ctx.Err() == nil {
			x.find(levelWarning, check, "", "a session could not be given up: %s", shownError(err))
		}
	case driver.KindOf(err) == driver.Invalid:
		x.find(levelError, check, "leave ?sessions=true out of the URL, or create another queue: this setting of a queue cannot be changed", "the queue has no sessions, and is opened as one that requires them")
		return false
	case driver.KindOf(err) == driver.Permission:
		x.find(levelNote, check, "a receiver needs Azure Service Bus Data Receiver on the queue", "this identity may not receive")
		return true
	case errors.Is(err, driver.ErrSessionHeld), errors.Is(err, driver.ErrNoSession):
	default:
		x.find(levelWarning, check, "receivers will fail in the same way", "a session was not given: %s", shownError(err))
		return true
	}
	x.ok(check, "the queue requires sessions: every message needs one")
	return true
}

// properties looks at how a queue was made.
func (x *doctorRun) properties(p *admin.QueueProperties) {
	const check = "settings"
	if s := p.Status; s != nil && *s != admin.EntityStatusActive {
		x.find(levelError, check, "set the queue active", "the queue's status is %s", *s)
	}
	if e := p.DeadLetteringOnMessageExpiration; e == nil || !*e {
		x.find(levelWarning, check, "turn on dead-lettering on message expiration (deadLetteringOnMessageExpiration)", "a message whose time to live is over is deleted by the broker, unseen")
	} else {
		x.ok(check, "a message whose time to live is over is dead-lettered")
	}
	if e := p.EnablePartitioning; e != nil && *e {
		x.find(levelNote, check, "give partitioned=true in the URL of services that have no right to manage: they find it out by refused batches only",
			"the queue is partitioned: a batch has messages of one session, or with duplicate detection of one message ID")
	}
	if e := p.AutoDeleteOnIdle; e != nil && *e != "" && *e != forever {
		x.find(levelWarning, check, "set autoDeleteOnIdle to never", "the queue is deleted, with its messages, when it is idle for %s", *e)
	}
	if f := p.ForwardTo; f != nil && *f != "" {
		x.find(levelError, check, "remove the forwarding: messages are bound to the queue that they were sent to", "the queue forwards its messages, which no receiver of the other queue can open")
	}
	if f := p.ForwardDeadLetteredMessagesTo; f != nil && *f != "" {
		x.find(levelWarning, check, "remove the forwarding of dead letters, or redrive by hand", "dead letters go to another queue: qrt dlq does not find them here")
	}
}

// forever is how the management API writes that something never happens: the
// longest duration that .NET has.
const forever = "P10675199DT2H48M5.4775807S"
