// Package sqlitefile is one SQLite file shared by processes: how it is found,
// created, recognised and migrated, and how it is read and written.
//
// # Writing
//
// SQLite has one writer at a time, and with synchronous FULL each commit waits
// for the disk. So all writes of a process go through one connection, and writes
// that are requested during a commit form one commit together, the next one: eight
// workers cost about as many waits for the disk as one. A write that finds the
// connection unused runs on the goroutine of its caller; what has to wait is left to
// the writing goroutine, so that its caller can give up. Across processes the file's own
// lock orders the writers. A process that competes with others pauses for a moment
// after each commit, because SQLite's lock is not fair.
//
// # Changes by others
//
// What a transaction has read holds in later ones of the same [Conn.Epoch]. While a
// caller watches, commits of other processes are noticed by looking for them; on Linux
// inotify(7) tells when to look.
//
// # Durability
//
// Write returns nil after the commit. With synchronous FULL the data then
// survives a power cut as far as the disk honours a flush; with NORMAL it
// survives a crash of the process, not of the machine.
//
// If a file is removed or replaced while it is open, later writes to it are lost: no
// other program finds them. So each transaction first checks that the file is still in
// its place, and fails if it is not.
//
// # Errors
//
// Errors are classified once, as driver.Error; see [Classify]. A call waits for the
// lock of another connection and reports it only after Config.LockTimeout.
package sqlitefile
