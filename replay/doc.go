// Package replay remembers which messages were handled, so that a broker that
// delivers a copy is found out while its redeliveries still pass, and which
// messages should have arrived, so that none vanishes unnoticed.
//
// A redelivery, after an abandon, an expired lock or a crash, carries the very
// envelope of the first delivery. So a [Store] does not remember what was seen
// but what was consumed. A receiver claims a message before its handler runs
// ([Store.Begin]), and consumes it before the broker is told that it is done
// ([Store.Finish]).
//
// # What is remembered
//
// An authenticated message has an [Identity]: sender, stream and sequence. The
// identity of a message stays the same when it is resealed. A store keeps
//
//   - for each stream the consumed sequences as intervals, with the newest
//     SealedAt in each;
//   - for a recent consumed message also 8 bytes of its tag, for twice its lease
//     and at least 5 minutes since it was consumed and since the last copy came.
//     Their number is bounded, and the oldest go early;
//   - a record for each message that is claimed, released or parked. Their
//     number is bounded: at the bound Begin answers [ErrFull] or [ErrQuota], and
//     nothing is forgotten to make room.
//
// A stream has at most 1,024 intervals. With more, gaps close that are accounted
// for without a consumed message (void, accepted, rejected, parked): such a
// message counts as consumed from then on. If that is not enough the oldest
// intervals are forgotten.
//
// A stream is kept for KeepStream after its newest consumed message, measured on
// the earlier of the store's clock and the newest SealedAt that its group
// consumed. What is forgotten leaves a mark behind, and an unknown message that
// was sealed no later than the mark is [ErrNotFresh], whatever age its receiver
// takes for fresh. So nothing that was consumed is granted again while the store
// keeps its memory: not by a receiver's clock that was set back, nor by a larger
// MaxMessageAge.
//
// # Calls
//
// Calls are batches: one result per item, in order, and each item sees the
// effects of those before it. A batch is not atomic. An error beside the slice
// means that the store did not answer, and that any part of the call may have
// happened: repeat the same call. Callers draw the tokens, so a repeated Begin
// gives the same claim again, and Finish is idempotent by kind and token. A
// caller that gets no answer fails closed. The Err of a result is an answer, one
// of the errors of this package; no error holds a token.
//
// Every result carries the [Stamp] of the memory that answered. A receiver that
// sees another ID, or a lower change number, has met a store that lost its memory
// or was restored from a backup.
//
// # Clocks
//
// Freshness and the retry window are judged by the receiver's clock, which comes
// with each [Request]; leases and retention by the store's own. Times are exact
// to the millisecond.
//
// # What it does not do
//
// The package authenticates nothing: enter only identities of messages that were
// authenticated. Execution is at least once: a receiver that crashes between its
// work and Finish handles the message again. A store within the broker's reach
// protects from nothing. [Memory] is the store of one process, which forgets at
// its end.
package replay
