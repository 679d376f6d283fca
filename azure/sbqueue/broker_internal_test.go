package sbqueue

import (
	"testing"
	"time"
)

// TestRetentionOf: the management API's word for a queue's retention is read, "never"
// is 0, and what no queue can have is refused.
func TestRetentionOf(t *testing.T) {
	for said, want := range map[string]time.Duration{
		"P14D": 14 * 24 * time.Hour, "PT1H30M": 90 * time.Minute, "P1DT0.5S": 24*time.Hour + 500*time.Millisecond, "PT0.001S": time.Second,
		"P10675199DT2H48M5.4775807S": 0,
		"PT0S":                       -1, "P0D": -1, "PT-5S": -1, "P-3D": -1, "": -1, "P": -1, "14": -1, "P1Y": -1, "PT5X": -1,
	} {
		d, err := retentionOf(&said)
		if refused := err != nil; refused != (want < 0) || !refused && d != want {
			t.Errorf("%q: %s, %v; want %s", said, d, err, want)
		}
	}
	if d, err := retentionOf(nil); d != 0 || err != nil {
		t.Errorf("not told: %s, %v", d, err)
	}
}
