// Package driver defines what a broker implements so that package queue can
// send and receive over it.
//
// Applications do not use it: they pass a [Broker] to queue.New. A driver
// does transport and nothing else. It never seals, opens or inspects a body
// (below the four bytes of [Message.Sealed]'s marker), never retries on its own
// account beyond what its client library does for one call, and never deletes
// a message because it could not be understood.
//
// # Delivery
//
// Delivery is at least once. A received message is held under a lock until it
// is settled, its lock runs out, or its holder goes away; then it is delivered
// again, with Count one higher. A settled message never comes back.
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
