// Package queue sends and receives messages over several brokers through one
// API, and protects them end to end: an attacker who controls the broker can neither
// read, alter, forge, substitute nor replay them.
//
// A [Client] stands on a driver.Broker (memqueue here; SQLite, PostgreSQL, SQS and
// Service Bus in modules of their own) and makes Senders and Receivers:
//
//	c, err := queue.New(broker, queue.Strict(ring, store))
//	s, err := c.Sender(ctx, "task-tactician", nil)
//	_, err = s.Send(ctx, &queue.Message{Body: body})
//
// # What it does
//
// Bodies are sealed with AES-256-GCM in the QRE1 envelope of spec/qre1.md,
// which binds them to the queue, the message ID, the session ID, the
// correlation ID, the content type and every attribute. A message that does not
// authenticate is never delivered: it is moved to the dead-letter queue with a
// code for a reason. Freshness is checked always, replays with a replay store.
//
// # What it does not do
//
// Encryption cannot stop a broker from dropping, delaying or reordering
// messages. Lengths, times, session IDs, attributes and the names of keys and
// queues are authentic but not secret. See docs/threat-model.md.
//
// # Delivery
//
// Execution is at least once. A message is delivered again after Abandon, after
// its lock runs out, or after its holder crashed; with a replay store a message
// whose completion was recorded never runs again.
//
// # Order
//
// Messages that share a session ID are delivered in the order in which their
// sends were confirmed, one holder at a time. Others have no order.
//
// # Concurrency
//
// A Client, Sender, Receiver and Session are safe for concurrent use. A Delivery
// may be settled from any goroutine, once. No call leaves a goroutine behind.
//
// # Errors
//
// Errors of broker calls are [*Error] with the operation and the queue; the
// sentinels of this package match through errors.Is. Context errors pass through
// unchanged. A call that is asked for messages, for one or for many, and has none fails
// with [ErrNoMessage]: a loop that polls goes on. What a broker cannot do is errors.ErrUnsupported. Error text and log
// lines never hold a payload, a key or a connection string.
package queue
