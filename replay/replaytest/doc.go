// Package replaytest is the suite that every [replay.Store] passes: each
// transition of its contract, a second handle with another clock, handles that
// are killed between calls, answers that are lost, memory that is lost or
// restored from a backup, bounds, and random schedules of several receivers and
// an attacker against a ledger that is written with other means than the stores.
//
// It cannot show that a store survives a power cut; a store that claims so has
// tests of its own for it. That the suite finds faults is shown by its own test,
// which plants them.
package replaytest
