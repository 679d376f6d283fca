package cli

import "time"

// SetCompletionTimeout sets how long a completion waits for the names of queues.
func SetCompletionTimeout(d time.Duration) { completionTimeout = d }
