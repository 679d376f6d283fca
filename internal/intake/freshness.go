package intake

import (
	"time"

	"github.com/queue-runtime/queue/driver"
)

// Times come from an authentic header. Zero means that the header has none.
type Times struct {
	EncryptedAt time.Time // never zero
	NotBefore   time.Time
	ExpiresAt   time.Time
	ResealedAt  time.Time
}

// SealedAt is what the replay store remembers a message by: the later of EncryptedAt and
// NotBefore. Resealing keeps it.
func (t Times) SealedAt() time.Time {
	if t.NotBefore.After(t.EncryptedAt) {
		return t.NotBefore
	}
	return t.EncryptedAt
}

// From is when the age of a message begins: at SealedAt, or when an operator sealed it
// anew.
func (t Times) From() time.Time {
	if from := t.SealedAt(); !t.ResealedAt.After(from) {
		return from
	}
	return t.ResealedAt
}

// Freshness is how a receiver judges times. All clocks may differ by Skew.
type Freshness struct {
	MaxAge time.Duration
	Skew   time.Duration
	// Skip: no message is too old. A broker can then replay all it ever stored.
	Skip bool
	// Store: a replay store judges the age, because it knows which messages are
	// redeliveries.
	Store bool
}

// Judgement is what Judge found.
type Judgement struct {
	Reason string        // driver.ReasonMessageExpired or ReasonMessageFromFuture; empty means nothing is wrong
	Wait   time.Duration // for ReasonMessageFromFuture: until it is due
	// MaxAge is the limit that was passed, for ReasonMessageExpired; 0 if it was the
	// message's own ExpiresAt.
	MaxAge time.Duration
	// FreshUntil is until when the message counts as fresh; zero with Skip.
	FreshUntil time.Time
}

// Judge judges the times of an authentic header by the receiver's clock. The end of
// each period still counts as within it.
func (f Freshness) Judge(t Times, now time.Time) Judgement {
	if now.Before(t.NotBefore.Add(-f.Skew)) {
		return Judgement{Reason: driver.ReasonMessageFromFuture, Wait: t.NotBefore.Sub(now)}
	}
	if !t.ExpiresAt.IsZero() && now.After(t.ExpiresAt.Add(f.Skew)) {
		return Judgement{Reason: driver.ReasonMessageExpired}
	}
	if f.Skip {
		return Judgement{}
	}
	latest := t.EncryptedAt
	if t.ResealedAt.After(latest) {
		latest = t.ResealedAt
	}
	if early := latest.Add(-f.Skew); now.Before(early) {
		return Judgement{Reason: driver.ReasonMessageFromFuture, Wait: early.Sub(now)}
	}
	until := t.From().Add(f.MaxAge + f.Skew)
	if !f.Store && now.After(until) {
		return Judgement{Reason: driver.ReasonMessageExpired, MaxAge: f.MaxAge}
	}
	return Judgement{FreshUntil: until}
}
