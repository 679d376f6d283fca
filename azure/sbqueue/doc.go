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
// The driver retries, few times and quickly; the SDK's retries are switched off. A
// sender or receiver whose link was detached is replaced; for some conditions
// (server-busy, timeout, an expired token) the SDK would use the dead link for ever. A
// Receive that waits when its link is detached goes on waiting.
//
// All calls end with their context, with one exception: while another call
// connects, which takes at most 10 s, the SDK blocks a Send, Receive or Peek that
// finds its link dead. Settle and Renew end within 10 s, whatever else asks the broker
// something within 20 s. A connection over which nothing is answered for 8 s is replaced;
// the sessions over it are lost. Sessions that have asked nothing meanwhile are asked first: if
// one has an answer, nothing is lost. A message that was received
// before the connection was lost is settled by its lock token over the next
// connection, after a renewal that tells whether it is still held. If the answer to a
// settlement is lost, the settlement may have taken effect: then its repetition fails
// with driver.ErrLockLost. No call settles a message that another receiver holds.
//
// A session ends with its link. The SDK attaches the link again by the session's name,
// unless another receiver was faster; the driver notices that and reports the session
// as lost. Accepting always has a deadline of at least 1.5 s, the time to connect in, and
// takes 2 s more if the broker does not answer.
// Sessions use a connection of their own, so a Broker has two.
//
// A Receive asks for as much credit as it may return messages. Until the next Receive over
// the same link, the SDK releases messages that arrive after it has returned, and other
// receivers can get them.
//
// The status of the management link, and AMQP conditions, are told apart even if
// the SDK has no code for them.
//
// # Limits
//
// The limit of a transfer is that of the link, 256 KiB or 1 MiB, less 256 bytes; set
// QueueOptions.MaxBytes for a larger one. A body leaves 16 KiB of it for metadata.
// Names of queues have up to 260 bytes. Close abandons the deliveries of a queue that
// are not settled. Peek does not work on a queue of sessions: the SDK peeks over a link
// that such a queue refuses. Stats need the management API, and so a namespace; their
// Ready includes messages in flight, which that API does not tell apart.
//
// A lock ends one lock duration (QueueOptions.Lock, or the management API's) after the
// receipt of the message, by this machine's monotonic clock. The broker's clock does
// not decide it, unless the duration is unknown: then the end that the broker tells
// counts, limited to between 5 s and a minute from now.
//
// # Concurrency
//
// A Broker is safe for concurrent use. Up to 32 calls of Receive on a queue without sessions
// are under way at once, each over a link of its own. To make a link takes some twenty round
// trips, and links are made one after the other; until then calls wait for one that is free.
// Close closes all queues and sessions of the
// Broker concurrently, and returns after 15 s if the service does not answer. These
// goroutines outlive a call, and Close waits for them: the SDK's own, one for each link
// that is being replaced, and those of calls that the SDK has not ended in time.
package sbqueue
