// Package sqlitereplay is a replay.Store in an SQLite file of its own, shared by
// the receivers of one machine and durable over restarts.
//
// It takes no server and no cgo. Each call is one transaction; calls of several
// goroutines at the same time share one commit. A Finish that returns has reached
// the disk, unless Options says otherwise: a power cut forgets nothing that was
// consumed. A Begin that returns may be forgotten by a power cut, see below.
//
// # Its own file
//
// A replay store must lie outside the reach of the broker. A queue of package
// sqlitequeue is refused, by whatever path or link it is named; so is every other
// database, and a file whose schema is not exactly the one that this package
// made, a planted trigger included. The file's folder must be writable for the
// receivers and for no account that they do not trust. The file must lie on a
// local disk: SQLite cannot share one over a network, and if the system tells
// that it is one, Open refuses.
//
// # Claims and power cuts
//
// A claim does not wait for the disk. A power cut may forget the claims of the
// last moments, whose holders ended with the machine: the messages come back from
// the broker, and are claimed again while they are fresh. A message that has
// become too old by then is dead-lettered as expired; its claim would have let it
// pass within its retry window. All transactions keep their order, so whatever
// reached the disk has all that was committed before it.
//
// # Time and room
//
// Leases follow the machine's clock, which all processes share: a clock set
// forward ends leases early. It drops no stream: retention is measured on the
// earlier of this clock and the newest message consumed. What is past its time is
// removed with later calls of its group, and its room in the file is reused. See
// replay.Bounds for how much a store holds.
//
// What a process has loaded stays in its memory while no other process writes to the
// file: up to 4,096 streams and pages, which take some megabytes and at most 20. A
// process that shares the file with others that write at the same time loads more
// often.
package sqlitereplay
