package queue

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/internal/intake"
	"github.com/queue-runtime/queue/internal/sealing"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/observe"
)

// unreadRecord is what the receivers of one queue in a Client know together: how many messages
// could not be read, and which sessions waited for a key.
type unreadRecord struct {
	alarm intake.Alarm
	waits intake.SessionWaits
}

// unreadRecordOf returns the record of a queue. limit is that of the receiver that opens it
// first.
func (c *Client) unreadRecordOf(queue string, limit int) *unreadRecord {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.unreadRecords[queue]; f != nil {
		return f
	}
	if c.unreadRecords == nil {
		c.unreadRecords = make(map[string]*unreadRecord)
	}
	f := &unreadRecord{alarm: intake.Alarm{Limit: limit}}
	c.unreadRecords[queue] = f
	return f
}

// sessionWait is how much longer a message of a session may hold it up; 0 if the wait of
// the session is over.
func (r *Receiver) sessionWait(t *taken) time.Duration {
	return r.unreadRecord.waits.Block(t.session.ID(), t.d.raw.EnqueuedAt, time.Now(), r.options.RotationHorizon)
}

// limitWait bounds the wait of a message whose key or version is not known.
func (r *Receiver) limitWait(t *taken, v *intake.Verdict) {
	if !t.inNamedSession() || v.Final {
		return
	}
	v.Wait = r.sessionWait(t)
	v.Final = v.Wait == 0
}

// versionOf is the version that an envelope names, 0 if it is cut short.
func versionOf(body []byte) uint8 {
	if len(body) <= len(envelope.Marker) {
		return 0
	}
	return body[len(envelope.Marker)]
}

// countUnread raises the alarm if too many messages are dead-lettered unread: forged, or
// no envelopes at all. They bury the dead letters that matter.
func (r *Receiver) countUnread(ctx context.Context, e *RejectedError) {
	if e.Disposition != driver.DeadLettered || !unread(e.Reason) {
		return
	}
	n := r.unreadRecord.alarm.Count(time.Now())
	if n == 0 {
		return
	}
	r.obs.Flood(ctx, r.obs.Source, observe.Flood{Reason: e.Reason, Count: n})
	r.log.LogAttrs(ctx, slog.LevelError, "Messages that cannot be read FLOOD the queue and are dead-lettered: a sender without the key sends to it",
		slog.String("queue", r.queue), slog.String("reason", e.Reason), slog.Int("count", n))
}

// unread reports whether a message that was rejected for that reason was never opened.
func unread(reason string) bool {
	switch reason {
	case driver.ReasonAuthentication, driver.ReasonPlaintext, driver.ReasonInvalidEnvelope,
		driver.ReasonUnsupportedVersion, driver.ReasonKeyNotFound, driver.ReasonSender:
		return true
	}
	return false
}

// peeker finds out whether messages open, at no message's cost. One caller at a time uses
// it: intake.Gate sees to that.
type peeker struct {
	opener sealing.QueueOpener
	cursor string // where the next look goes on; "" is the start
}

// How much one look reads: 1,024 messages, so that forgeries in front of an authentic one
// hide it for few looks, in pages that a broker hands out at once.
const (
	peekPage  = 32
	peekPages = 32
)

// unobserved is the Scope of what is no event of a queue.
var unobserved = observe.NewScope(nil, observe.Source{})

// peekOpens looks through waiting messages for one that opens, and returns its key. If it
// sees none that fails, only a message can tell.
func (r *Receiver) peekOpens(ctx context.Context) (keys.ID, intake.Answer) {
	p := &r.peeker
	failed := false
	var opened sealing.Opened
	for range peekPages {
		page, next, err := r.q.Peek(ctx, p.cursor, peekPage)
		switch {
		case errors.Is(err, errors.ErrUnsupported):
			return "", intake.NeedsMessage
		case err != nil:
			p.cursor = "" // it may be the cursor that is refused
			return "", intake.Away
		}
		for _, raw := range page {
			f := p.opener.Open(ctx, raw, &opened)
			if f == nil && opened.Sealed {
				id := opened.KeyID()
				r.client.known.note(r.queue, id, r.valueOf(id))
				return id, intake.Back
			}
			failed = failed || f != nil && f.Reason == driver.ReasonAuthentication
		}
		p.cursor = next
		if next == "" {
			break
		}
	}
	if !failed && p.cursor == "" {
		return "", intake.NeedsMessage
	}
	return "", intake.Away
}
