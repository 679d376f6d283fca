// Package sqlitequeue is a durable broker in one SQLite file: no server, several
// processes of one machine.
//
// It has every capability that package driver can express: sessions with exclusive
// locks and a state, delays and schedules, lifetimes, de-duplication, dead letters,
// peeking and exact statistics. SQLite is modernc.org/sqlite, which is Go without cgo.
//
// # Durability
//
// A send or a settlement is confirmed after it is on the disk: neither kill -9 nor a
// power cut undoes it, as far as the disk honours a flush. See [Normal] for the faster
// choice. Concurrent calls share one wait for the disk, so that throughput grows with
// the number of workers and with the size of batches. Locks do not wait for the disk: a
// power cut ends all of them in any case, and a message may then be delivered with a
// Count that misses the last delivery.
//
// # Delivery
//
// Delivery is at least once, and fenced: each delivery has a random token, and a call
// on a delivery whose lock is over fails with driver.LockLost. No process has to run
// when a lock ends: the next call that looks at the queue takes note.
//
// Messages stand in the order in which they were sent, and keep that place: a message
// that is abandoned or released, or whose lock runs out, is delivered before the ones
// behind it. Only driver.Release takes the delivery off the count. A lock that runs
// out always counts, so that a message which ends its process reaches MaxDeliveries.
// A scheduled message takes its place when it is due and delays no message before.
//
// Receive on a queue also delivers messages that belong to sessions, at most one
// of a session at a time. While it is held, or waits out the delay of an abandon, later
// messages of its session are delivered only to the holder of the session; a delay
// stops them for the holder, too. AcceptSession without a name takes the session that
// has been free for the longest time.
//
// A message whose TTL or retention is over is moved to the dead-letter queue with the
// reason "expired", a message that reached MaxDeliveries with "max_deliveries". No
// message is dropped, except dead letters after QueueOptions.DeadLetterRetention.
//
// # Waiting
//
// A commit of the same process wakes a waiting call at once. Commits of other processes
// are noticed within 1 to 20 ms, by asking SQLite for the version of its data. Each
// look costs about 10 us of processor time; there are none while no call waits.
//
// # The file
//
// It must lie on a local disk: SQLite cannot share a file over a network. Open refuses
// a file on a network file system (NFS, SMB, Ceph and others) if the system tells,
// which Linux does. It does not refuse file systems in user space (FUSE), nor those
// between a machine and its virtual machines; most of them do not carry SQLite's locks.
//
// While it is open there are two more files beside it, with -wal and -shm in their
// names. A third, with -turn, is there from the first opening on; by it processes take
// turns at writing. Do not touch any of them: a process that opens and closes one by
// other means, for example to copy it, drops its own locks on it (fcntl(2)). Make
// backups with the sqlite3 shell (.backup), or with all processes stopped. Calls fail
// with driver.Corrupt once the file is no longer where it was opened, because their
// writes would be lost.
//
// New files have mode 0600. Locks and lifetimes follow the machine's clock: they end
// early if it is set forward, and last longer if it is set back.
//
// Space freed by completed messages is reused. If more than half of the file is free,
// it is returned to the file system, periodically and by Close. A schema newer than
// this package knows is refused; an older one is migrated when the file is opened.
//
// An attacker who can write to the file controls the broker, and can drop, repeat and
// reorder messages, and read those that are not sealed. A message with values that this
// package does not write is delivered as undecodable, never dropped.
//
// # Concurrency
//
// Everything is safe for concurrent use. A Broker has two goroutines, and none
// after Close.
package sqlitequeue
