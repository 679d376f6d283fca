// Package replaystate is the state machine of replay protection: pure functions
// over pages, heads and groups. Stores load these, apply the functions and save
// what changed; they add no rule of their own.
//
// # What there is
//
// A group has a [Group] and streams. A stream has a [Head] and pages. A [Page]
// covers a fixed number of consecutive sequences and is the truth for them while
// it exists: the bits of what was consumed, the records of what is claimed,
// released or parked, the tags of what was consumed recently, and the mark below
// which unknown sequences are refused. A page is made from the head and folded
// back into it when nothing in it can change soon. So the head is read only when
// a page is made, and written only when one is folded.
//
// # What keeps replays out
//
// Every sequence that was consumed is in its page's bits, in an interval of its
// stream's head, or was sealed no later than the mark that judges it. Each
// function here keeps that sentence true; TestNothingForgotten holds the package
// to it.
//
// # Units
//
// Times are Unix milliseconds and durations are milliseconds. "Now" is the
// store's clock, unless a field says that it is the receiver's.
//
// Nothing here is safe for concurrent use: a store guards what it loads.
package replaystate
