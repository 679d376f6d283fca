// Package outbox stores sealed messages in a transaction of the application, in its own
// PostgreSQL database, and sends them to any other broker afterwards: a row and the
// message about it are both there, or none.
//
//	box, err := outbox.Open(ctx, "postgres://app@db/app?sslmode=verify-full", nil)
//	...
//	p, err := sender.Prepare(ctx, &queue.Message{SessionID: "order-17", Body: body})
//	...
//	err = box.Put(ctx, tx, p) // and tx.Commit
//	...
//	f, err := outbox.NewForwarder(ctx, box, broker, "orders", nil)
//	...
//	err = f.Run(ctx)
//
// An outbox is a schema of package postgresqueue with a queue for each queue of the other
// broker, under the same name. So qrt shows its counts and its dead letters, and redrives
// them.
//
// # Delivery
//
// At least once. A Forwarder sends a message, and removes it when the broker has
// confirmed it. A crash in between sends it again, with the same bytes and so with the
// same identity: receivers with a replay store handle it once.
//
// # Order
//
// Messages of a session are sent in the order of their commits, one at a time, by
// whatever number of Forwarders: one that is not confirmed yet holds up those behind it.
// Without a session there is no order.
//
// # Secrets
//
// Put takes sealed messages only, and a Forwarder needs no key. The owner of the database
// can drop, repeat, delay and reorder what is in the outbox, as the owner of a broker can.
//
// # Concurrency
//
// An Outbox is safe for concurrent use; a Forwarder runs once. Any number of processes may
// put and forward.
//
// # Errors
//
// Errors are *queue.Error of package queue. After an error of Put the transaction must be
// rolled back.
package outbox
