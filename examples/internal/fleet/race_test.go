//go:build race

package fleet_test

// someRounds are the rounds of kills in a test: the race detector makes SQLite, which
// is Go here, ten times slower.
const someRounds = 3
