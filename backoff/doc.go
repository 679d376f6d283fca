// Package backoff says how long to wait before something is tried again: a [Policy]
// for one message or call, and a [Breaker] that keeps callers from a service that
// fails. [Sleep] is the wait itself.
//
// It does no I/O and starts no goroutine. Everything in it is safe for concurrent
// use. All durations count monotonic time, so a clock that is set changes nothing.
package backoff
