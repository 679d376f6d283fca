// Package sqlitequeue is a durable broker in one SQLite file: no server, several
// processes of one machine.
//
// It has all that package driver can express: sessions with exclusive locks and a
// state, delays and schedules, lifetimes, de-duplication, dead letters, peeking
// and exact statistics. SQLite is modernc.org/sqlite, which is Go without cgo.
//
// # Durability
//
// A send or a settlement is confirmed after the disk has it: neither kill -9 nor
// a power cut takes it back, as far as the disk honours a flush. See [Normal] for
// the faster choice. Calls at the same time share one wait for the disk, so that
// throughput grows with the number of workers and with the size of batches. Locks
// do not wait for the disk: a power cut ends all of them in any case, and a
// message may then be delivered with a Count that misses the last delivery.
//
// # Delivery
//
// Delivery is at least once, and fenced: each delivery has a random token, and
// what is done with one whose lock is over fails with driver.LockLost. The end
// of a lock needs no process to notice it: the next one that looks takes note.
//
// Messages stand in the order in which they were sent, and keep that place: one
// that is abandoned or released, or whose lock runs out, is delivered before those
// behind it. Only driver.Release takes the delivery off the count. A lock that runs
// out always counts, so that a message which ends its process reaches MaxDeliveries.
// A scheduled message takes its place when it is due and holds up nobody before.
//
// Receive on a queue also delivers messages that belong to sessions, at most one
// of a session at a time. While one is held, or waits out the delay of an
// abandon, no later message of its session is delivered, save to whoever holds
// the session, and a delay holds up the session's holder too. AcceptSession with
// no name serves the sessions in the order in which they came free.
//
// A message whose TTL or retention is over is moved to the dead-letter queue
// with the reason "expired", one that had its deliveries with
// "max_deliveries". Nothing is dropped, unless QueueOptions.DeadLetterRetention
// says so of dead letters.
//
// # Waiting
//
// A call that waits is woken at once by its own process. Commits of other
// processes are noticed within 1 to 20 ms, by asking SQLite for the version of
// its data: about 10 us of processor time a look, and none when nobody waits.
//
// # The file
//
// It must lie on a local disk: SQLite cannot share a file over a network, and
// where the system tells that it is one (NFS, SMB, Ceph and others, on Linux),
// Open refuses. File systems in user space (FUSE), and those between a machine and
// its virtual ones, are not refused, and most do not carry SQLite's locks.
//
// While it is open there are two more files beside it, with -wal and -shm in
// their names, and from the first opening on one with -turn, by which processes take
// turns at writing. Leave all of them alone: a process that opens and closes one by other
// means, to copy it say, drops its own locks on it (fcntl(2)). A backup is made by
// the sqlite3 shell (.backup), or with all processes stopped. Calls fail with
// driver.Corrupt once the file is no longer where it was opened: what they would
// confirm is lost.
//
// New files have mode 0600. Locks and lifetimes follow the machine's clock: one
// that is set forward ends them early, one that is set back lets them last longer.
//
// Room of what was completed is reused, and given back, every now and then and by
// Close, when more than half of the file is free. A schema newer than this package knows is refused; an older
// one is migrated when the file is opened.
//
// Whoever can write to the file controls the broker: it can drop, repeat and
// reorder messages, and read those that are not sealed. What is stored with
// values that this package does not write is handed up as undecodable, never
// dropped.
//
// # Concurrency
//
// Everything is safe for concurrent use. A Broker has two goroutines, and none
// after Close.
package sqlitequeue
