// Package sbqueue is a driver for Azure Service Bus queues, on the official SDK.
//
// Sessions, dead letters, schedules, time to live, peeking and duplicate detection
// are the broker's own. It has no abandon with a delay: on a queue without sessions
// a copy is scheduled and the original completed, so that the broker's ID and
// place change, and the count goes on in an application property; on a queue with
// sessions there is none, and package queue holds the session for that time.
//
// # What the SDK leaves to its user
//
// Settling after a connection was lost goes through the dead link and takes most
// of a minute: here it is bounded, and repeated by the lock token over the
// management link. ReceiveMessages returns nothing once after a detach, and must
// not be called twice at once: both are hidden. Accepting a session has a deadline
// always. Conditions that carry no code are told apart by their AMQP names.
// Retries are few and quick, because package queue has its own.
//
// # Limits
//
// The limit of a batch is that of the link, 256 KiB or 1 MiB, less 16 KiB for a
// body's metadata. Names of queues have up to 260 bytes. A delivery that is not
// settled when its queue is closed is abandoned. A queue of sessions cannot be
// peeked into: the SDK does it over a link that such a queue refuses. Stats need the management API and
// so a namespace: the emulator has none.
//
// A Broker is safe for concurrent use. It starts no goroutine that outlives a
// call, beside those of the SDK, which Close ends.
package sbqueue
