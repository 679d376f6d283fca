// Package postgresqueue is a broker in a PostgreSQL database, version 14 or newer.
//
// It has all that package driver can express: sessions with exclusive locks and a
// state, delays and schedules, lifetimes, de-duplication, dead letters, peeking and
// exact statistics. The client is pgx.
//
// # Schema
//
// [Open] creates a schema of the name that the caller chooses, with tables and
// functions, and migrates an older one. It refuses a schema that is not a queue
// ([ErrForeign]), one that a newer version of this package wrote ([ErrNewer]) and one
// whose functions were changed ([ErrAltered]). What this package does to messages, it
// does in these functions, one call and one round trip for a batch. They run with the
// rights of the schema's owner, so a role needs the right to execute some functions
// and none on tables: docs/brokers/postgres.md has the roles of senders, receivers
// and operators.
//
// # Durability
//
// A send or a settlement is confirmed after its commit. What a commit survives is
// decided by the server's synchronous_commit: with on, the default, a crash of the
// server; with a synchronous standby, the loss of its machine too; with off, neither.
//
// # Delivery
//
// Delivery is at least once, and fenced: each delivery has a random token, and a
// settlement after the end of the lock fails with driver.LockLost. Locks
// are rows, no session of the database holds them: they survive a lost connection and
// work behind a pooler. The next call that looks for messages notices that a lock is
// over.
//
// Messages stand in the order in which they were sent, and keep that place. Messages
// without a session have no promised order, because several receivers claim at the
// same time. Receive on a queue also delivers messages of sessions, at most one of a
// session at a time. AcceptSession without a name serves the sessions in the order in
// which they came free.
//
// A message whose TTL or retention is over becomes a dead letter with the reason
// "expired", one that had its deliveries with "max_deliveries". Nothing is dropped,
// unless QueueOptions.DeadLetterRetention says so of dead letters.
//
// # Time
//
// Every time is the server's. A lock is reported as its duration, counted by this
// process's monotonic clock from just before the request was sent, so that it never
// ends later here than there. Message.NotBefore is compared with the server's clock.
//
// # Waiting
//
// A call that waits is woken at once by its own process, and by LISTEN and NOTIFY
// from others: one more connection of the Broker, opened by the first call that
// waits. It also looks by itself each Options.Poll, because a notification may be
// lost with the process that should have sent it. Behind a pooler that gives a
// connection to a client for one transaction only, set Options.Pooled: then nothing
// listens, and nothing is prepared.
//
// # Limits
//
// Texts are UTF-8 without the character NUL; a message with others fails with
// driver.Invalid. Attributes are bytes and may have any.
//
// # Concurrency
//
// Everything is safe for concurrent use. A Broker has one goroutine, two after the
// first wait, the connections of its pool, and none after Close.
package postgresqueue
