// Package driver defines what a broker implements so that package queue can
// send and receive over it.
//
// Applications do not use it: they pass a [Broker] to queue.New. A driver
// does transport and nothing else. It never seals, opens or inspects a body
// (below the four bytes of [Message.Sealed]'s marker), never retries on its own
// account beyond what its client library does for one call, and never deletes
// a message because it could not be understood.
//
// # Packages of drivers
//
// A driver's package exports its connection as a type named Broker and an Options
// struct whose zero value is right. A function New, or one whose name begins with New
// or From, makes a Broker from values in memory (a configuration, a credential, a
// connection string) and does no I/O. Open makes one from a path or a URL, takes a
// context, and may do I/O. Neither keeps a context.
//
// What drivers check and copy alike is in this package: [CheckName], [Message.Check],
// [Message.Clone], [CheckSettings].
//
// # Delivery
//
// Delivery is at least once. A received message is held under a lock until it
// is settled, its lock runs out, or its holder goes away; then it is delivered
// again, with Count one higher. A settled message never comes back. Only [Release]
// gives a message back uncounted, and only if Capabilities.ReleaseUncounted says so.
//
// A copy of a message, such as a driver makes if the broker has no delay or no
// dead-letter queue, is made of what was received, with all that the broker keeps of
// it, and never of a Delivery that the application may have changed.
//
// # Order
//
// Messages of one session are delivered in the order in which their sends were
// confirmed. While one is held, or waits for redelivery, later messages of its
// session are delivered only to the holder of that session. Messages without a
// session have no promised order.
//
// # Concurrency
//
// All methods of all interfaces are safe for concurrent use. A driver starts no
// goroutine that outlives the Close of the value that owns it.
//
// # Errors
//
// A driver classifies each error once, as an [*Error] with a [Kind]; context
// errors pass through as they are. What a broker cannot do is visible in
// [Capabilities], and answers an error that wraps errors.ErrUnsupported.
// Error text never holds a payload, a credential or a connection string.
package driver
