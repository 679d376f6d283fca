// Package sbqueue is a driver for Azure Service Bus queues, on the official SDK.
//
// Sessions, dead letters, schedules, time to live, peeking and duplicate detection
// are the broker's own. It has no abandon with a delay: on a queue without sessions
// a copy is scheduled and the original completed, so that the broker's ID and
// place change, and the count goes on in an application property; on a queue with
// sessions there is none, and package queue holds the session for that time.
//
// # Counts
//
// Service Bus raises the delivery count when a message is abandoned or its lock runs
// out. AMQP has an outcome that does not count ("released", Part 3, Section 3.4.4),
// which Service Bus honours and the SDK keeps to itself: no call of azservicebus
// sends it for a message that was handed out. So driver.Release is the same as
// driver.Abandon here, and Capabilities.ReleaseUncounted is false.
//
// # What the SDK leaves to its user
//
// Retries are few and quick, and made here: the SDK's are switched off. A sender or
// receiver whose link was detached is replaced; for some conditions (server-busy,
// timeout, an expired token) the SDK would go on with the dead one for ever. A
// Receive that waits over a detach goes on waiting.
//
// All calls end with their context, with one exception: while another call
// connects, which takes 10 s at most, the SDK keeps a Send, Receive or Peek that
// finds its link dead. Settle and Renew end within 10 s. What was received before
// the connection was lost is settled by its lock token over the next one, after a
// renewal that tells whether it is still held. Where the answer to a settlement is
// lost it may have taken effect: then the repetition is driver.ErrLockLost. Nothing
// settles a message that somebody else holds.
//
// A session ends with its link. The SDK attaches it again by its name, where
// nobody was faster; that is noticed, and is a loss. Accepting has a deadline
// always: 1.5 s at least, the time to connect in. What sessions use is a connection
// of its own, so a Broker has two.
//
// A Receive asks for as much credit as it may return. What arrives after it has
// returned is released by the SDK, until the next Receive, and is free for others.
//
// The status of the management link, and AMQP conditions, are told apart also where
// the SDK has no code for them.
//
// # Limits
//
// The limit of a transfer is that of the link, 256 KiB or 1 MiB, less 256 bytes; a
// larger one has to be given by QueueOptions.MaxBytes. A body leaves 16 KiB of it
// for metadata. Names of queues have up to 260 bytes. A delivery that is not
// settled when its queue is closed is abandoned. A queue of sessions cannot be
// peeked into: the SDK does it over a link that such a queue refuses. Stats need
// the management API, and so a namespace; what is ready includes what is held,
// which that API does not tell apart.
//
// The end of a lock is its receipt, by this machine's monotonic clock, and the
// queue's lock duration (QueueOptions.Lock, or the management API's). The broker's
// clock does not decide it. Only if the duration is not known does the end that the
// broker tells count, as far as it is earlier than a minute and later than 5 s.
//
// # Concurrency
//
// A Broker is safe for concurrent use. Close closes everything that came from it,
// side by side, and ends after 15 s where the broker does not answer. It starts no
// goroutine that outlives a call, beside those of the SDK, one for each link that
// is being replaced, and those of calls that the SDK has not ended in time: Close
// waits for them.
package sbqueue
