// Package sqlitefile is one SQLite file shared by processes: how it is found,
// created, recognised and migrated, and how it is read and written.
//
// # Writing
//
// SQLite has one writer at a time, and with synchronous FULL each commit waits
// for the disk. So all writes of a process go through one connection, and what
// is asked for while a commit is under way is committed together as the next
// one: eight workers cost about as many waits for the disk as one. Across
// processes the file's own lock orders the writers; a process that finds itself
// in competition steps back for a moment after each commit, because SQLite's
// lock is not fair.
//
// # Durability
//
// Write returns nil after the commit. With synchronous FULL the data then
// survives a power cut as far as the disk honours a flush; with NORMAL it
// survives a crash of the process, not of the machine.
//
// A file that is removed, or has another put in its place, while it is open
// would take what is written to it along: no later program finds it. That is
// looked for before each transaction, and fails it.
//
// # Errors
//
// Errors are classified once, as driver.Error; see [Classify]. A lock of
// somebody else is waited for, never reported before Config.Patience is over.
package sqlitefile
