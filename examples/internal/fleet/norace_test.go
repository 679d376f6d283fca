//go:build !race

package fleet_test

// someRounds are the rounds of kills in a test.
const someRounds = 6
