package replay

import (
	"context"
	"errors"
	"time"
)

// Errors of a [NonceStore]. Anything else means that the store could not
// answer; the caller then fails closed.
var (
	// ErrReused: the envelope was consumed before: a replay.
	ErrReused = errors.New("nonce reused")
	// ErrBusy: a live claim of another owner exists.
	ErrBusy = errors.New("nonce claimed by another receiver")
	// ErrNotFresh: the envelope is past its freshness and was never seen fresh,
	// or its retry window is over.
	ErrNotFresh = errors.New("not fresh and never seen")
	// ErrFull: the store has no room; it never makes room by forgetting.
	ErrFull = errors.New("replay store full")
	// ErrClaimLost: the token no longer owns the claim.
	ErrClaimLost = errors.New("claim lost")
)

// ID identifies one sealed envelope: length-prefixed key ID, salt and nonce as
// they stand in its header (key ID, salt and nonce). It is opaque
// and at most MaxID bytes.
type ID string

// MaxID bounds an ID in bytes: 1 + 64 (key ID) + 32 (salt) + 12 (nonce).
const MaxID = 1 + 64 + 32 + 12

// MaxGroup bounds a group in bytes.
const MaxGroup = 255

// Request asks to claim an envelope.
type Request struct {
	// Group is the set of receivers that share one memory of what was handled,
	// 1 to MaxGroup bytes; by default the queue's name.
	Group string
	// ID is the envelope's, taken only from a message that was authenticated.
	ID ID
	// BrokerID is the broker's identity of the stored message. The store keeps
	// that of the message that consumed the ID, so that its own redelivery
	// after a lost completion is told from a replay. Empty is never Duplicate.
	BrokerID string
	// Lease is how long the claim lives without Renew, by the store's clock.
	// Above zero.
	Lease time.Duration
	// FreshUntil is when the envelope stops being fresh, by the receiver's
	// clock; Now is that clock. An ID never seen is claimed only while
	// Now <= FreshUntil.
	FreshUntil time.Time
	Now        time.Time
	// RetryWindow bounds the redelivery of an envelope that was first seen
	// fresh, counted from FirstSeen: past FirstSeen + RetryWindow it is
	// ErrNotFresh. Above zero.
	RetryWindow time.Duration
	// RetainClaimed is until when a record that is claimed or released is kept
	// for its FirstSeen; a live lease outlasts it. Both times are by the
	// receiver's clock: a store counts them from Now, and may keep a record a
	// little longer, never shorter.
	RetainClaimed time.Time
	// RetainConsumed is until when a consumed record is kept. With the record
	// its FirstSeen goes, so that what returns afterwards is judged by its
	// freshness alone.
	RetainConsumed time.Time
}

// Claim is what Begin grants.
type Claim struct {
	// Token owns the claim: 128 random bits, never reused. Empty when
	// Duplicate.
	Token string
	// FirstSeen is when the envelope was first claimed, by the receiver's
	// clock (Request.Now of that call).
	FirstSeen time.Time
	// Duplicate: this very broker message already consumed the ID. Its handler
	// has finished; only the broker's completion was lost.
	Duplicate bool
}

// NonceStore remembers sealed envelopes in three states: absent, claimed,
// consumed. Implementations are safe for concurrent use, make each method one
// atomic step over all processes that share the store, and pass the suite in
// replay/replaytest.
type NonceStore interface {
	// Begin claims an envelope.
	//
	// Absent, or claimed and released or past its lease: a Claim with a new
	// token; FirstSeen is kept from the first. Not fresh and never seen:
	// ErrNotFresh, and no record is made. First seen longer than RetryWindow
	// ago: ErrNotFresh. Under a live lease: ErrBusy, whatever BrokerID says.
	// Consumed: a Claim with Duplicate when BrokerID is the one that consumed
	// it, else ErrReused. No room: ErrFull. A request out of its bounds
	// (Request.Validate) is an error of its own.
	Begin(ctx context.Context, r Request) (Claim, error)

	// Renew extends a live claim by lease from now. ErrClaimLost when the
	// token does not own the claim any more, its lease being over included.
	Renew(ctx context.Context, group string, id ID, token string, lease time.Duration) error

	// Consume turns the claim into consumed. It succeeds again for the same
	// token (the answer to the first may have been lost). ErrClaimLost when
	// another token owns it, when it is consumed by another, or when no record
	// exists, or when the claim was released. A claim whose lease is over but
	// that nobody else has taken is still consumed: its handler did finish.
	Consume(ctx context.Context, group string, id ID, token string) error

	// Release gives a claim up so that the next Begin succeeds at once. It
	// keeps FirstSeen and compares the token: ErrClaimLost when another owns
	// the claim, and for a consumed record, which it never touches. Releasing
	// twice, or a record that is gone, is nil.
	Release(ctx context.Context, group string, id ID, token string) error

	// Retention is the longest that the store keeps a record; 0 means as long
	// as the Request asks. Package queue refuses a store that keeps too
	// short.
	Retention() time.Duration
}
