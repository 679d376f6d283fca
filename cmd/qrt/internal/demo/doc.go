// Package demo runs the scenario that the library is judged by, and reports what
// happened: a router seals GitHub webhooks for three queues, three bots with a
// key each receive them, keys rotate under traffic, encrypted and plain senders
// share a queue, and an attacker who controls the broker tries all of the threat
// model on the stored messages.
//
// It prints nothing. What was lost, forged or delivered is decided by a [Ledger]
// of hashes of what senders sent and receivers got, which knows nothing of the
// library; what the library says of a message is reported beside it.
//
// Run owns every goroutine it starts: when it returns, none is left.
package demo
