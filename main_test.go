package queue_test

import (
	"crypto/rand"
	"os"
	"testing"
)

// TestMain draws a random number before any test does: under GODEBUG=fips140=only
// the generator seeds itself by measuring time, and time stands still in a synctest
// bubble.
func TestMain(m *testing.M) {
	_, _ = rand.Read(make([]byte, 1))
	os.Exit(m.Run())
}
