package queue_test

import (
	"os"
	"testing"

	"github.com/queue-runtime/queue/internal/drbg"
)

// soak is how much of a long proof to run: all of it with QRT_SOAK=1 (make soak).
func soak(normal, full int) int {
	if os.Getenv("QRT_SOAK") == "1" {
		return full
	}
	return normal
}

// TestMain supplies the bubbles of testing/synctest with random numbers under
// FIPS 140-3, where the generator seeds itself by measuring time.
func TestMain(m *testing.M) {
	drbg.Prime()
	os.Exit(m.Run())
}
