package sqldriver

import (
	"time"

	"github.com/queue-runtime/queue/driver"
)

// DeadLetterCapabilities is what the dead letters of a queue can do, which keep them for so long.
func DeadLetterCapabilities(c driver.Capabilities, retention time.Duration) driver.Capabilities {
	c.Sessions, c.SessionState, c.AcceptByID, c.SessionOnly = driver.None, driver.None, false, false
	c.DeadLetter, c.Schedule, c.TTL, c.Dedup = driver.None, driver.None, driver.None, driver.None
	c.MaxDeliveries, c.Retention = 0, retention
	return c
}
