package sqldriver

import (
	"strconv"

	"github.com/queue-runtime/queue/driver"
)

// AfterCursor returns the place after which Peek goes on: that of the last message seen, which
// stays good when messages come and go. It refuses arguments that Peek does not take.
func AfterCursor(cursor string, limit int) (after int64, err error) {
	if cursor != "" {
		after, err = strconv.ParseInt(cursor, 10, 64)
		if err != nil || after < 1 {
			return 0, driver.Errorf(driver.Invalid, "not a cursor of this queue")
		}
	}
	if limit < 1 {
		return 0, driver.Errorf(driver.Invalid, "max is %d, it must be at least 1", limit)
	}
	return after, nil
}
