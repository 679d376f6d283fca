// Package stream numbers the messages of one sender: it opens streams, counts
// sequences, and says in each message what is settled, what is void and which
// message of the session came before (qre1, Sections 2.6 and 2.7).
//
// It does no I/O and reads no clock: a [Reading] is an argument. It keeps the
// sequences that are outstanding, at most 65,536 a stream, and the last confirmed
// message of 4,096 sessions a stream.
//
// Every sequence that [Call.Next] gives out has one of three ends: [Number.Confirm]
// if the broker has the message, [Number.Void] if it will never have it, and
// [Number.Unknown] if the sender gave up without learning which. The last one ends
// the stream soon, because nothing behind the message can be settled any more.
//
// [Streams] and [Call] are safe for concurrent use.
package stream
