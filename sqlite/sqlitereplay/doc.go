// Package sqlitereplay is a replay.NonceStore in an SQLite file of its own,
// shared by the receivers of one machine and durable over restarts.
//
// It takes no server and no cgo. Each method is one transaction; what several
// goroutines ask for at the same time shares one commit. A call that returns has
// reached the disk, unless Options says otherwise: a power cut forgets nothing
// that was consumed.
//
// # Its own file
//
// A replay store must lie outside the reach of whoever controls the broker. A
// queue of package sqlitequeue is refused, by whatever path or link it is named;
// so is every other database. The file's folder must be writable for the
// receivers and for nobody whom they do not trust. The file must lie on a local
// disk: SQLite cannot share one over a network, and where the system tells that
// it is one, Open refuses.
//
// # Time and room
//
// Leases and retention follow the machine's clock, which all processes share. A
// clock set forward ends leases early, and lets go of records; should it be set
// back afterwards, what they were about is fresh once more, and can be replayed:
// slew clocks, and do not step them. Records past their time are removed a few
// with each Begin, and their room in the file is reused. A store that is full of
// records that are still needed answers replay.ErrFull; it forgets none.
//
// What is stored of an envelope is a SHA-256 of its group and ID.
package sqlitereplay
