// Package replay remembers which sealed envelopes were handled, so that a broker
// that delivers a copy is found out while its redeliveries still pass.
//
// A redelivery, after an abandon, an expired lock or a crash, carries the very
// envelope of the first delivery; a cache of what was seen would take it for a
// replay. So a [NonceStore] knows three states: absent, claimed by a receiver
// under a lease, consumed. Only consumed makes a copy a replay, and a message
// counts as consumed before the broker is told that it is done.
//
// [Memory] is the store of one process, which forgets at its end. Stores that
// last or are shared live in modules of their own and pass the suite in
// replay/replaytest.
//
// What the package does not do: it authenticates nothing, so only IDs from
// messages that were authenticated may be entered, or an attacker fills the
// store. It makes execution at least once, not exactly once: a receiver that
// crashes between its work and [NonceStore.Consume] does it again. And a store
// within the broker's reach protects from nothing.
//
// # Clocks
//
// Freshness, the retry window and retention are judged by the receiver's clock,
// which comes with each [Request]; leases by the store's own.
//
// # Errors
//
// The sentinels below are answers. Any other error means that the store could
// not answer, and the caller fails closed. No error holds an ID or a token.
package replay
