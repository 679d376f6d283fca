package cli

import "time"

// SetCompletePatience sets how long a completion waits for the names of queues.
func SetCompletePatience(d time.Duration) { completePatience = d }
