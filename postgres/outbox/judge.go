package outbox

import (
	"context"
	"errors"
	"time"

	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
)

// ReasonRefused is the reason of a dead letter that its broker does not carry: it is too
// large for it, or has something that the broker cannot express. Other reasons are those
// of package driver.
const ReasonRefused = "refused_by_broker"

// verdict is what becomes of a message in the outbox.
type verdict struct {
	kind        driver.SettleKind
	delay       time.Duration // of Abandon
	reason      string        // of MoveToDeadLetter
	description string        // likewise
	outage      bool          // the broker is away, or refuses everything: the message is not to blame
}

func dead(reason, description string) verdict {
	return verdict{kind: driver.MoveToDeadLetter, reason: reason, description: description}
}

// beforeSending judges a message that was taken from the outbox. ok is true if it is to
// be sent; it returns the header of the envelope then.
func beforeSending(d *driver.Delivery, now time.Time, maxAge time.Duration) (h envelope.Header, v verdict, ok bool) {
	e, err := envelope.Parse(d.Body)
	switch {
	case d.Undecodable:
		return h, dead(driver.ReasonUndecodable, "the row of the outbox is not as it was stored"), false
	case !envelope.IsSealed(d.Body):
		return h, dead(driver.ReasonPlaintext, "the message in the outbox is not sealed"), false
	case errors.Is(err, envelope.ErrUnsupportedVersion):
		return h, dead(driver.ReasonUnsupportedVersion, "the envelope has a version that this forwarder does not know"), false
	case err != nil:
		return h, dead(driver.ReasonInvalidEnvelope, "the body has the envelope's marker and does not parse"), false
	}
	h = e.Header
	sealed := time.UnixMilli(max(h.EncryptedAt, h.NotBefore, h.ResealedAt))
	if h.ExpiresAt != 0 && !now.Before(h.ExpiresTime()) {
		return h, dead(driver.ReasonMessageExpired, "the message reached its own expiry in the outbox"), false
	}
	if maxAge > 0 && now.Sub(sealed) >= maxAge {
		return h, dead(driver.ReasonMessageExpired, "the message is older than its receivers accept (ForwarderOptions.MaxAge)"), false
	}
	return h, verdict{}, true
}

// afterSending judges a message by what the broker said to it. count is how often the
// outbox has delivered it, limit after how many of these it is given up; 0 means never.
func afterSending(err error, count, limit int, retry backoff.Policy) verdict {
	kind := driver.KindOf(err)
	switch {
	case err == nil:
		return verdict{kind: driver.Complete}
	case errors.Is(err, errors.ErrUnsupported), kind == driver.Invalid, kind == driver.TooLarge:
		return dead(ReasonRefused, "the broker does not carry this message as it is")
	case kind == driver.NotSent:
		return verdict{kind: driver.Release}
	case kind != driver.Other, errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return verdict{kind: driver.Release, outage: true}
	case limit > 0 && count >= limit:
		return dead(driver.ReasonMaxDeliveries, "the broker refused the message at each attempt")
	}
	return verdict{kind: driver.Abandon, delay: max(0, retry.Delay(count))}
}
