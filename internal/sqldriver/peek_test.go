package sqldriver

import (
	"errors"
	"testing"

	"github.com/queue-runtime/queue/driver"
)

// TestAfterCursor takes what Peek returned, and nothing else.
func TestAfterCursor(t *testing.T) {
	for cursor, want := range map[string]int64{"": 0, "1": 1, "9223372036854775807": 1<<63 - 1, "0": -1, "-1": -1, "x": -1, "9223372036854775808": -1} {
		got, err := AfterCursor(cursor, 1)
		if want >= 0 && (err != nil || got != want) || want < 0 && !errors.Is(err, driver.ErrInvalid) {
			t.Errorf("%q: %d, %v; want %d (-1: refused)", cursor, got, err, want)
		}
	}
	if _, err := AfterCursor("", 0); !errors.Is(err, driver.ErrInvalid) {
		t.Errorf("a limit of 0: %v, want ErrInvalid", err)
	}
}
