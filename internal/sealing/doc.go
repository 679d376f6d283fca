// Package sealing seals and opens the messages of a queue. It joins the envelope
// format, the keys, and what a broker hands over of a message; senders, receivers and
// the redrive of dead letters all go through it, so that no path forgets a check.
//
// A [QueueSealer] seals, and seals anew. A [QueueOpener] opens: marker, parse, key known, key
// loaded, authentication, origin, in this order. Nothing of a message is believed,
// cached or counted by its key before the message is authenticated. Freshness and
// replays are judged by the caller: they depend on the time and on other messages.
//
// A [Cipher] is the default way to use a key; other implementations of [Crypto] may
// keep keys in hardware.
//
// # Errors
//
// What is wrong with a message or a call is a [*Failure]: a code of package driver and
// a cause. Package queue makes its public errors of them. A context that has ended is
// ctx.Err(), without a code: it says nothing about the message.
package sealing
