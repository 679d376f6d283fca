package replay

import (
	"context"
	"errors"
	"iter"
)

// Answers of a [Store], in the Err of a result. Compare with errors.Is.
var (
	// ErrDuplicate: the message was consumed recently, and this copy has the
	// same tag. Complete it; do not deliver it.
	ErrDuplicate = errors.New("message was consumed before")
	// ErrReused: the message was consumed, too long ago to compare tags, or one
	// of the two was resealed, so that their tags cannot be compared: a replay.
	ErrReused = errors.New("nonce reused")
	// ErrCollision: the identity is known with another tag, and neither message
	// was resealed: two messages were sealed under one identity.
	ErrCollision = errors.New("identity collision")
	// ErrBusy: another claim is live, until Claim.BusyUntil.
	ErrBusy = errors.New("claimed by another receiver")
	// ErrNotFresh: the message is unknown and past its freshness or not newer
	// than the store's mark, or known and past its retry window.
	ErrNotFresh = errors.New("not fresh and never seen")
	// ErrFull: the store or the group has no room for another record or stream.
	// It never makes room by forgetting what it needs.
	ErrFull = errors.New("replay store full")
	// ErrQuota: this sender has used up its own room. Other senders go on.
	ErrQuota = errors.New("sender's quota of the replay store is used up")
	// ErrClaimLost: the token does not own the claim any more, and the message
	// is not consumed: it will be delivered again.
	ErrClaimLost = errors.New("claim lost")
	// ErrHandled: the message is consumed, by another claim or too long ago to
	// tell by which. It will not be delivered again.
	ErrHandled = errors.New("message is consumed")
	// ErrInvalid: the item breaks the bounds of its type.
	ErrInvalid = errors.New("invalid replay item")
)

// Store remembers messages. Implementations are safe for concurrent use, make each
// item of a call one atomic step over all processes that share the store, and
// pass the suite in replay/replaytest.
//
// Begin, Renew, Finish, Look and Note answer one result per item, in order. See
// the package comment for what an error beside the slice means. A group is the
// set of receivers that share one memory of what was handled, 1 to MaxGroup
// bytes. A call has at most MaxBatch items.
type Store interface {
	// Begin claims messages.
	Begin(ctx context.Context, group string, r []Request) ([]Claim, error)

	// Renew extends live claims from now on. A claim whose lease is over is
	// ErrClaimLost, although Finish may still succeed.
	Renew(ctx context.Context, group string, l []Lease) ([]Renewed, error)

	// Finish ends claims. A claim whose lease is over but that no other receiver
	// has taken over still ends as its owner says: the handler did finish.
	Finish(ctx context.Context, group string, f []Finish) ([]Finished, error)

	// Look says what is known of messages. It changes nothing.
	Look(ctx context.Context, group string, q []Query) ([]Look, error)

	// Note enters decisions and reports about sequences for the accounting.
	Note(ctx context.Context, group string, n []Note) ([]Noted, error)

	// Streams iterates over the streams of a group with what is missing of
	// each. It ends with its context and after an error. Streams that appear or
	// go meanwhile may be left out.
	Streams(ctx context.Context, group string) iter.Seq2[Stream, error]

	// Probe says whether the store takes another record of the group: nil, ErrFull,
	// or any other error if the store does not answer. It writes, so that a store
	// that can only be read fails; what it writes is no record. A receiver that
	// stopped because of the store probes before it fetches a message.
	Probe(ctx context.Context, group string) error

	// Stats says what the store holds.
	Stats(ctx context.Context) (Stats, error)

	// KnownKeys returns the keys under which messages of the group opened, in the order
	// in which they were noted. So a receiver that starts knows which secrets are right.
	KnownKeys(ctx context.Context, group string) ([]KnownKey, error)

	// NoteKey enters a key under which a message opened, and returns the key of that queue
	// and ID as it is known from then on. One that is known stays as it is, also with
	// another value: then another receiver has another secret under the ID.
	NoteKey(ctx context.Context, group string, k KnownKey) (KnownKey, error)

	// ForgetKey removes the key of that queue and ID, with whatever value, and reports
	// whether there was one.
	ForgetKey(ctx context.Context, group string, k KnownKey) (bool, error)

	// History says which memory the store has, and which losses of memory operators
	// have accepted. It costs one read.
	History(ctx context.Context) (History, error)

	// AcceptLoss records that an operator accepts the loss of a memory: of lost.ID, with
	// lost.Change if that is known; other fields are not used. It may be the present
	// memory, whose change number has fallen. From then on the present memory has
	// another ID and birth, and keeps what it holds. Receivers that stopped because of
	// that loss go on, and so do those that remember the memory that the store had until
	// then, unless with a higher change number: that is a loss of its own. The same loss
	// again changes nothing. It fails with ErrInvalid if lost.ID is zero.
	AcceptLoss(ctx context.Context, lost Stamp) (Loss, error)
}
