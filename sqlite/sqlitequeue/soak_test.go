package sqlitequeue_test

import "os"

// soak is how much of a long proof to run: full with QRT_SOAK=1 (make soak),
// otherwise normal.
func soak(normal, full int) int {
	if os.Getenv("QRT_SOAK") == "1" {
		return full
	}
	return normal
}
