//go:build !unix

package measure

import "time"

// cpuTime is not known on this system: figures of processor time are 0.
func cpuTime() time.Duration { return 0 }
