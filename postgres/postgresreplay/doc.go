// Package postgresreplay is a replay.Store in a PostgreSQL database, version 14 or newer,
// shared by the receivers of a fleet, and consumes messages in the transactions of their
// handlers. The client is pgx.
//
// # Schema
//
// [Open] creates a schema of the name that the caller chooses, and migrates an older one.
// It refuses a schema that is no replay store ([ErrForeign]), one that a newer version of
// this package wrote ([ErrNewer]), and one that was changed, by a trigger for instance
// ([ErrAltered]). docs/replay/postgres.md has the roles of receivers and handlers.
//
// # Its own database
//
// A replay store must lie outside the reach of the broker. queue.New refuses a broker in
// the same database, unless Options.TrustDatabaseOperators is set. To consume messages in
// transactions it must lie in the database of the application, so let the broker lie
// elsewhere.
//
// # Handled once
//
// [Store.ConsumeTx] consumes a message in the transaction that writes what its handler
// did. Both happen or neither does. Handlers that do not use it work at least once, as on
// every store.
//
// # Durability
//
// Every answer comes after its commit. The transactions of the store have
// synchronous_commit = on, or remote_apply if the role has that, whatever else is set: what
// an answer says survives a crash of the server, and with a synchronous standby the loss of
// its machine. If the server has fsync = off, Stats.Durable is false.
//
// A database that comes back from a failover or a backup without a call that was confirmed
// to a process gets another ID and birth (replay.Stamp) by the next call of that process
// that writes, so that the receivers of all processes notice. If every process has ended to
// which a lost call was confirmed, none notices.
//
// # Calls
//
// A call that writes is one transaction, two round trips and one wait for the disk, for a
// batch of any size. It locks its group: calls of one group follow each other, and wait for
// none of another. A process that is stopped in the middle of a call loses the group after
// 15 seconds. Bounds of the whole store may be exceeded by what groups add at the same
// time; those of a group and of a sender are exact.
//
// # Time
//
// Every time is the server's: the clock of the process counts for nothing. A clock that is
// set forward ends leases early and forgets nothing.
//
// # Concurrency
//
// Everything is safe for concurrent use. A Store has the goroutines of its pool, and none
// after Close. Calls that are under way make Close wait.
package postgresreplay
