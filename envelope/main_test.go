package envelope

import (
	"os"
	"testing"

	"github.com/queue-runtime/queue/internal/drbg"
)

// TestMain supplies the bubbles of testing/synctest with random numbers under
// FIPS 140-3, where the generator seeds itself by measuring time.
func TestMain(m *testing.M) {
	drbg.Prime()
	os.Exit(m.Run())
}
